"""Logistic regression with an L2 penalty, for many penalties at once.

Minimises  sum over samples of the loss + lambda / 2 * |W|^2  over weights W and an unpenalised
intercept: what scikit-learn's LogisticRegression minimises with C = 1 / lambda. Classes are a
softmax; two classes are one sigmoid, as there; a 0/1 matrix is one sigmoid for each column.

The solver is L-BFGS (Liu and Nocedal 1989), with three things that change its speed and not its
solution. Features are centred and turned into the axes of their covariance, of which no more
than min(N, D) are left. There a diagonal, the curvature of the loss along each axis plus lambda,
is the first guess of the Hessian, so that badly scaled features cost no iterations. And all
penalties step together: one matrix product serves them all.

Shapes: N samples, B samples of a block, D features, R axes and the intercept, K outputs,
C classes, L penalties, A of them still stepping, P = R * K parameters of one penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wit.progress import Progress

MEMORY = 10  # steps that L-BFGS remembers
MAX_ITERATIONS = 1000
TOLERANCE = 1e-8  # share of the objective by which it may be above its minimum, by estimate
ENOUGH = 1e-6  # the same, where the precision of the numbers allows no less
PATIENCE = 30  # steps without a nearer estimate that show it
BLOCK_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}  # of logits held at once
ARMIJO = 1e-4  # share of the promised decrease that a step must bring
HALVINGS = 30  # of a step, before the end of its precision is declared

Step = tuple[Tensor, Tensor, Tensor]  # step (A, P), change of the gradient (A, P), 1 / product (A,)


@dataclass(frozen=True)
class Data:
    """Features in the axes of their covariance; serves any number of fits.

    Attributes:
        x_NR: features less `mean_D`, times `axes_DR`; the last column is 1, for the intercept.
        spread_R: sum of the squares of each column.
    """

    x_NR: Tensor
    axes_DR: Tensor
    mean_D: Tensor
    spread_R: Tensor


@dataclass(frozen=True)
class Target:
    """What is to be predicted: a class for each sample, or yes or no for each output."""

    outputs: int
    class_N: Tensor | None = None  # softmax over outputs
    yes_NK: Tensor | None = None  # a sigmoid for each output: 1 yes, 0 no, -1 not judged
    pair: bool = False  # the one sigmoid stands for two classes


@dataclass(frozen=True)
class Fit:
    """Solutions for L penalties, and how they were reached.

    Attributes:
        weight_LDC, bias_LC: for features as they were given; float64, on the CPU.
        objective_L: value of what was minimised.
        iterations_L: steps taken.
        gap_L: estimated distance to the minimum, as a share of the objective.
        converged_L: whether that is within the tolerance, or `ENOUGH` where no step came nearer.
    """

    weight_LDC: Tensor
    bias_LC: Tensor
    objective_L: Tensor
    iterations_L: Tensor
    gap_L: Tensor
    converged_L: Tensor

    def scores(self, x_ND: Tensor) -> Tensor:
        """Logits (L, N, C), float64; of two classes, the first has 0."""
        return x_ND.double().cpu() @ self.weight_LDC + self.bias_LC[:, None]


def prepare(x_ND: Tensor, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Data:
    """Centre features and turn them into the axes of their covariance, computed in float64.

    Args:
        x_ND: finite features of any length; at least one sample.
        dtype: precision of the fits; float32 is enough for `TOLERANCE`.
    """
    samples, width = x_ND.shape
    mean_D = x_ND.mean(dim=0, dtype=torch.float64)
    if samples < width:
        centred_ND = x_ND.double() - mean_D
        square_R, left_NR = torch.linalg.eigh(centred_ND @ centred_ND.T)
        axes_DR = torch.nn.functional.normalize(centred_ND.T @ left_NR, dim=0, eps=1e-300)
    else:
        gram_DD = mean_D.new_zeros(width, width)
        for block_BD in torch.split(x_ND, 4096):
            centred_BD = block_BD.double() - mean_D
            gram_DD += centred_BD.T @ centred_BD
        square_R, axes_DR = torch.linalg.eigh(gram_DD)
    # An axis with no more in it than the rounding of float64 is none of the data's.
    real_R = square_R > square_R.max() * max(samples, width) * 1e-15
    axes_DR, square_R = axes_DR[:, real_R], square_R[real_R]
    x_NR = torch.ones(samples, len(square_R) + 1, dtype=dtype, device=device)
    for start in range(0, samples, 4096):
        block_BD = x_ND[start : start + 4096].double() - mean_D
        x_NR[start : start + 4096, :-1] = (block_BD @ axes_DR).to(device, dtype)
    spread_R = torch.cat([square_R, square_R.new_tensor([float(samples)])]).to(device, dtype)
    return Data(x_NR, axes_DR.cpu(), mean_D.cpu(), spread_R)


def target(label: Tensor, classes: int, device: str = "cpu") -> Target:
    """Labels (N,) from 0 to `classes` - 1, each of which occurs, or truth (N, K) of 1 and 0, with
    -1 for what is left out.

    Raises:
        ValueError: fewer than two classes.
    """
    label = label.to(device)
    if label.ndim == 2:
        return Target(label.shape[1], yes_NK=label.to(torch.int8))
    if classes < 2:
        raise ValueError("a classifier needs at least two classes")
    if classes == 2:
        return Target(1, yes_NK=(label == 1).to(torch.int8)[:, None], pair=True)
    return Target(classes, class_N=label)


def fit(
    data: Data,
    aim: Target,
    penalties: Sequence[float],
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Fit:
    """Minimise the objective for every penalty.

    Args:
        penalties: the lambdas, each above 0.
    """
    solver = _Solver(data, aim, penalties)
    solver.run(tolerance, max_iterations)
    weight_LRC = solver.w_LP.double().cpu().view(len(penalties), -1, aim.outputs)
    if aim.pair:
        weight_LRC = torch.cat([torch.zeros_like(weight_LRC), weight_LRC], dim=2)
    weight_LDC = data.axes_DR @ weight_LRC[:, :-1]
    bias_LC = weight_LRC[:, -1] - data.mean_D @ weight_LDC
    gap_L = solver.gap_L.cpu()
    return Fit(
        weight_LDC,
        bias_LC,
        solver.objective_L.cpu(),
        solver.iterations_L.cpu(),
        gap_L,
        gap_L <= max(tolerance, ENOUGH),
    )


class _Solver:
    """L-BFGS for all penalties at once; one that has converged steps no further."""

    def __init__(self, data: Data, aim: Target, penalties: Sequence[float]) -> None:
        device, count = data.x_NR.device, len(penalties)
        self.data, self.aim = data, aim
        self.lambda_L = torch.tensor(penalties, dtype=torch.float64, device=device)
        self.w_LP = data.x_NR.new_zeros(count, data.x_NR.shape[1] * aim.outputs)
        self.objective_L = torch.zeros_like(self.lambda_L)
        self.iterations_L = torch.zeros(count, dtype=torch.int64, device=device)
        self.gap_L = torch.full_like(self.lambda_L, torch.inf)
        self.least_L, self.least_at_L = self.gap_L.clone(), self.iterations_L.clone()
        # Below this a change of the objective is rounding.
        self.noise = 10 * torch.finfo(data.x_NR.dtype).eps

    def run(self, tolerance: float, max_iterations: int) -> None:
        active_A = torch.arange(len(self.w_LP), device=self.w_LP.device)
        w_AP = self.w_LP.clone()
        value_A, slope_AP, curve_AK = self.evaluate(active_A, w_AP)
        memory: list[Step] = []
        progress = Progress("probe")
        for iteration in range(max_iterations + 1):
            unit = f"steps at most, {len(active_A)} of {len(self.w_LP)} penalties under way"
            progress(iteration, max_iterations, unit)
            step_AP = _direction(slope_AP, memory, self.diagonal(active_A, curve_AK))
            promise_A = _dot(slope_AP, step_AP)  # minus twice the estimated gap
            self.w_LP[active_A], self.objective_L[active_A] = w_AP, value_A
            self.gap_L[active_A] = -promise_A / 2 / value_A.clamp(min=1e-300)
            self.iterations_L[active_A] = iteration
            going_A = (self.gap_L[active_A] > tolerance) & ~self.stalled(active_A, iteration)
            if iteration == max_iterations or not going_A.any():
                break
            if not going_A.all():
                active_A, w_AP, slope_AP = active_A[going_A], w_AP[going_A], slope_AP[going_A]
                step_AP, value_A, promise_A = step_AP[going_A], value_A[going_A], promise_A[going_A]
                memory = [(s[going_A], y[going_A], rho[going_A]) for s, y, rho in memory]
            next_AP, value_A, next_slope_AP, curve_AK = self.search(
                active_A, w_AP, step_AP, value_A, promise_A
            )
            if torch.equal(next_AP, w_AP):
                break
            memory = [*memory[1 - MEMORY :], _remember(next_AP - w_AP, next_slope_AP - slope_AP)]
            w_AP, slope_AP = next_AP, next_slope_AP
        progress.clear()

    def stalled(self, active_A: Tensor, iteration: int) -> Tensor:
        """Whether each is near its minimum and has come no nearer for a while: (A,)."""
        gap_A = self.gap_L[active_A]
        nearer_A = gap_A < self.least_L[active_A]
        self.least_L[active_A] = torch.where(nearer_A, gap_A, self.least_L[active_A])
        at_A = torch.where(nearer_A, iteration, self.least_at_L[active_A])
        self.least_at_L[active_A] = at_A
        return (gap_A <= ENOUGH) & (iteration - at_A > PATIENCE)

    def search(
        self, active_A: Tensor, w_AP: Tensor, step_AP: Tensor, value_A: Tensor, promise_A: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take the first of the steps 1, 1/2, 1/4 ... that decreases each objective enough.

        Returns:
            New parameters, values, gradients and curvatures. Parameters stay where they are when
            they have come to the end of their precision.
        """
        size_A = torch.ones_like(value_A)
        next_AP = w_AP + step_AP
        next_value_A, slope_AP, curve_AK = self.evaluate(active_A, next_AP)
        for halving in range(HALVINGS):
            limit_A = value_A + ARMIJO * size_A * promise_A + self.noise * value_A
            over_A = ~(next_value_A <= limit_A)  # also where it is not finite
            if not over_A.any():
                break
            size_A[over_A] = size_A[over_A] / 2 if halving < HALVINGS - 1 else 0.0
            size_O1 = size_A[over_A, None].to(w_AP.dtype)
            next_AP[over_A] = w_AP[over_A] + size_O1 * step_AP[over_A]
            next_value_A[over_A], slope_AP[over_A], curve_AK[over_A] = self.evaluate(
                active_A[over_A], next_AP[over_A]
            )
        return next_AP, next_value_A, slope_AP, curve_AK

    def diagonal(self, active_A: Tensor, curve_AK: Tensor) -> Tensor:
        """Of the Hessian, were each sample's curvature the mean one: (A, P)."""
        lambda_AR1 = self.lambda_L[active_A, None, None].repeat(1, len(self.data.spread_R), 1)
        lambda_AR1[:, -1] = 0  # no penalty on the intercept
        diagonal_ARK = self.data.spread_R[:, None] * curve_AK[:, None] + lambda_AR1
        return diagonal_ARK.flatten(1).clamp(min=1e-30).to(self.w_LP.dtype)

    def evaluate(self, active_A: Tensor, w_AP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (A,) in float64, gradient (A, P) and mean curvature of the loss (A, K)."""
        count, outputs = len(active_A), self.aim.outputs
        x_NR, samples = self.data.x_NR, len(self.data.x_NR)
        w_ARK = w_AP.view(count, -1, outputs)
        w_RAK = w_ARK.permute(1, 0, 2).flatten(1).contiguous()  # (R, A * K): one product for all
        slope_RAK = torch.zeros_like(w_RAK)
        value_A = torch.zeros(count, dtype=torch.float64, device=w_AP.device)
        curve_AK = w_AP.new_zeros(count, outputs)
        rows = max(64, BLOCK_BYTES[x_NR.device.type] // (count * outputs * x_NR.element_size()))
        for start in range(0, samples, rows):
            x_BR = x_NR[start : start + rows]
            logit_BAK = (x_BR @ w_RAK).view(-1, count, outputs)
            if self.aim.class_N is not None:
                loss_BA = _softmax_(logit_BAK, self.aim.class_N[start : start + rows])
            else:
                assert self.aim.yes_NK is not None
                loss_BA = _sigmoid_(logit_BAK, self.aim.yes_NK[start : start + rows])
            value_A += loss_BA.sum(dim=0, dtype=torch.float64)
            slope_RAK += x_BR.T @ logit_BAK.flatten(1)
            size_BAK = logit_BAK.abs_()  # p of a wrong output, 1 - p of the right one
            curve_AK += size_BAK.sum(dim=0) - (size_BAK * size_BAK).sum(dim=0)
        lambda_A11 = self.lambda_L[active_A, None, None].to(w_AP.dtype)
        slope_ARK = slope_RAK.view(-1, count, outputs).permute(1, 0, 2).contiguous()
        slope_ARK[:, :-1] += lambda_A11 * w_ARK[:, :-1]
        length_A = w_ARK[:, :-1].double().square().sum(dim=(1, 2))
        value_A += self.lambda_L[active_A] / 2 * length_A
        return value_A, slope_ARK.flatten(1), curve_AK / samples


def _softmax_(logit_BAK: Tensor, class_B: Tensor) -> Tensor:
    """Losses (B, A); the logits become their gradient, in place.

    Everything is relative to the right class, so that a loss far below the rounding of the
    logits keeps its digits.
    """
    index_BA1 = class_B[:, None, None].expand(-1, logit_BAK.shape[1], 1)
    logit_BAK -= logit_BAK.gather(2, index_BA1)
    top_BA1 = logit_BAK.amax(dim=2, keepdim=True)  # >= 0: the right class has 0
    logit_BAK.sub_(top_BA1).exp_().scatter_(2, index_BA1, 0.0)
    wrong_BA1 = logit_BAK.sum(dim=2, keepdim=True)
    right_BA1 = torch.exp(-top_BA1)
    all_BA1 = wrong_BA1 + right_BA1
    logit_BAK /= all_BA1
    logit_BAK.scatter_(2, index_BA1, -wrong_BA1 / all_BA1)
    loss_BA1 = torch.where(top_BA1 == 0, torch.log1p(wrong_BA1), top_BA1 + torch.log(all_BA1))
    return loss_BA1.squeeze(2)


def _sigmoid_(logit_BAK: Tensor, yes_BK: Tensor) -> Tensor:
    """Losses (B, A), summed over outputs; the logits become their gradient, in place."""
    sign_B1K = (1 - 2 * yes_BK[:, None]).to(logit_BAK.dtype)
    judged_B1K = (yes_BK >= 0)[:, None].to(logit_BAK.dtype)
    margin_BAK = logit_BAK.mul_(sign_B1K)
    loss_BAK = torch.nn.functional.softplus(margin_BAK, threshold=1e9)
    margin_BAK.sigmoid_().mul_(sign_B1K * judged_B1K)
    return (loss_BAK * judged_B1K).sum(dim=2)


def _direction(slope_AP: Tensor, memory: Sequence[Step], diagonal_AP: Tensor) -> Tensor:
    """Minus the gradient times the approximate inverse Hessian: the two loops of L-BFGS."""
    q_AP, weights = slope_AP.clone(), []
    for s_AP, y_AP, rho_A in reversed(memory):
        weight_A = rho_A * _dot(s_AP, q_AP)
        q_AP -= weight_A[:, None].to(q_AP.dtype) * y_AP
        weights.append(weight_A)
    q_AP /= diagonal_AP
    if memory:
        s_AP, y_AP, rho_A = memory[-1]
        scale_A = _dot(s_AP, y_AP) / _dot(y_AP, y_AP / diagonal_AP).clamp(min=1e-300)
        q_AP *= torch.where(rho_A > 0, scale_A, 1.0)[:, None].to(q_AP.dtype)
    for (s_AP, y_AP, rho_A), weight_A in zip(memory, reversed(weights), strict=True):
        q_AP += (weight_A - rho_A * _dot(y_AP, q_AP))[:, None].to(q_AP.dtype) * s_AP
    return q_AP.neg_()


def _remember(s_AP: Tensor, y_AP: Tensor) -> Step:
    """A step for the memory; one without curvature, which rounding can make, counts nothing."""
    product_A = _dot(s_AP, y_AP)
    length_A = (_dot(s_AP, s_AP) * _dot(y_AP, y_AP)).sqrt()
    return s_AP, y_AP, torch.where(product_A > 1e-8 * length_A, 1 / product_A, 0.0)


def _dot(a_AP: Tensor, b_AP: Tensor) -> Tensor:
    """Inner products (A,) with float64 sums."""
    return (a_AP * b_AP).sum(dim=1, dtype=torch.float64)
