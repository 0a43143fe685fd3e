"""What is quicker or smaller beside the plain path: outputs and gradients to 1e-5 in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from train.config import ModelConfig, TrainConfig
from train.dist import World
from train.loop import Run, build, train
from train.model.clip import CLIP
from train.model.predictive import new_model
from train.model.transformer import QuickGELU, Transformer

ALONE = World(0, 1, torch.device("cpu"))
LENGTHS = (3, 9, 5, 16, 4)


def captions(context: int = 16, vocab: int = 100) -> Tensor:
    make = torch.Generator().manual_seed(1)
    out_BL = torch.zeros(len(LENGTHS), context, dtype=torch.long)
    for row, length in zip(out_BL, LENGTHS, strict=True):
        row[:length] = torch.randint(1, vocab - 2, (length,), generator=make)
        row[0], row[length - 1] = vocab - 2, vocab - 1
    return out_BL


def pictures(side: int, count: int = len(LENGTHS)) -> Tensor:
    make = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, side, side), generator=make, dtype=torch.uint8)


def with_gradients(output: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a weighted sum of it."""
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    return [output.detach(), *torch.autograd.grad((output * weight).sum(), list(inputs))]


def same(got: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


def text_tower() -> tuple[Transformer, Tensor, Tensor]:
    """A tower, tokens of five captions as it gets them, and where each is pooled."""
    torch.manual_seed(0)
    tower = Transformer(32, 3, 4, "quick_gelu", dropout=0.0)
    x_BLD = torch.randn(len(LENGTHS), 16, 32, requires_grad=True)
    return tower, x_BLD, torch.tensor(LENGTHS) - 1


def at_the_end(x_BLD: Tensor, at_B: Tensor) -> Tensor:
    return x_BLD[torch.arange(len(at_B)), at_B]


@pytest.fixture
def plain() -> list[Tensor]:
    """Every token of every block, with a mask tensor."""
    tower, x_BLD, at_B = text_tower()
    out_BLD = x_BLD
    for block in tower.resblocks:
        out_BLD = _masked(block, out_BLD)
    return with_gradients(at_the_end(out_BLD, at_B), [x_BLD, *tower.parameters()])


def _masked(block: Any, x_BLD: Tensor) -> Tensor:
    attn, normed_BLD = block.attn, block.ln_1(x_BLD)
    q, k, v = F.linear(normed_BLD, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    heads = [t.unflatten(2, (attn.heads, -1)).transpose(1, 2) for t in (q, k, v)]
    mask_LL = torch.full((x_BLD.shape[1],) * 2, -torch.inf).triu(1)
    out = F.scaled_dot_product_attention(*heads, attn_mask=mask_LL)
    x_BLD = x_BLD + attn.out_proj(out.transpose(1, 2).flatten(2))
    return x_BLD + block.mlp(block.ln_2(x_BLD))


def test_the_causal_flag_equals_a_mask(plain: list[Tensor]) -> None:
    tower, x_BLD, at_B = text_tower()
    out_BD = at_the_end(tower(x_BLD, causal=True), at_B)
    same(with_gradients(out_BD, [x_BLD, *tower.parameters()]), plain)


@pytest.mark.parametrize("packing", [False, True])
def test_the_pooled_token_alone_and_packing_equal_all_tokens(plain, packing: bool) -> None:
    tower, x_BLD, at_B = text_tower()
    tower.packing = packing
    out_BD = tower.pooled(x_BLD, at_B, causal=True)
    same(with_gradients(out_BD, [x_BLD, *tower.parameters()]), plain)


def test_packed_blocks_see_no_padding() -> None:
    tower, x_BLD, at_B = text_tower()
    seen: list[int] = []
    for block in tower.resblocks:
        block.mlp.register_forward_hook(lambda _, args, __: seen.append(args[0].numel() // 32))  # type: ignore[union-attr]
    tower.packing = True
    tower.pooled(x_BLD, at_B, causal=True)
    assert seen == [sum(LENGTHS), sum(LENGTHS), len(LENGTHS)]


@pytest.mark.parametrize("packing", [False, True])
def test_captions_cut_at_the_longest_equal_the_whole_context(tiny, packing: bool) -> None:
    torch.manual_seed(0)
    model = CLIP(ModelConfig(**{**tiny, "context_length": 24, "dropout": 0.0}), 100)
    parameters = [p for n, p in model.named_parameters() if not n.startswith(("visual", "logit"))]
    whole_BL = captions(context=24)
    expected = with_gradients(model.encode_text(whole_BL), parameters)
    model.transformer.packing = packing
    same(with_gradients(model.encode_text(whole_BL[:, :16]), parameters), expected)


def test_packing_is_left_out_of_the_image_tower_and_can_train(make_config, tiny) -> None:
    config: TrainConfig = make_config(pack=True, steps=30, model__dropout=0.0)
    packed = build(config, 100, 1, "", ALONE).model
    plain = build(config.model_copy(update={"pack": False}), 100, 1, "", ALONE).model
    for a, b in zip(packed(pictures(16), captions()), plain(pictures(16), captions()), strict=True):
        torch.testing.assert_close(a, b)
    assert train(config) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch_dropout": 0.5, "stem_norm": "batch"},
        {"pool": "mean"},
        {"objective": "caption"},
        {"name": "tiny-resnet", "width": 8, "image_size": 32},
    ],
)
@pytest.mark.parametrize("how", ["full", "selective"])
def test_checkpointing_gives_the_same_to_the_bit(make_config, tiny, changes, how: str) -> None:
    values = {**tiny, **changes} if "name" not in changes else {"context_length": 16, **changes}
    config = make_config(model=values)
    got = []
    for value in ("off", how):
        run = build(config.model_copy(update={"gradient_checkpointing": value}), 100, 1, "", ALONE)
        torch.manual_seed(5)
        outputs = run.model(pictures(config.model.image_size), captions())
        sum(output.square().sum() for output in outputs).backward()
        gradients = {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}
        got.append((outputs, gradients, dict(run.model.named_buffers()), torch.rand(1)))
    for a, b in zip(got[0][0], got[1][0], strict=True):
        assert torch.equal(a, b)
    for one, other in zip(got[0][1:3], got[1][1:3], strict=True):  # type: ignore[arg-type]
        assert one.keys() == other.keys()  # type: ignore[union-attr]
        assert all(torch.equal(one[name], other[name]) for name in one)  # type: ignore[index]
    assert torch.equal(got[0][3], got[1][3]), "random numbers go on alike"


def test_checkpointing_keeps_less_or_computes_less(make_config) -> None:
    config = make_config(model__layers=6)

    def made(how: str) -> Run:
        return build(config.model_copy(update={"gradient_checkpointing": how}), 100, 1, "", ALONE)

    def kept(how: str) -> int:
        run = made(how)
        sizes: list[int] = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            run.model(pictures(16), captions())
        return sum(sizes)

    def operations(how: str) -> int:
        run, counter = made(how), FlopCounterMode(display=False)
        with counter:
            sum(output.sum() for output in run.model(pictures(16), captions())).backward()
        return counter.get_total_flops()

    assert kept("full") < kept("off") / 2
    assert operations("off") == operations("selective") < 0.9 * operations("full")


def test_patch_dropout_keeps_the_class_token_and_a_share_of_patches(tiny) -> None:
    torch.manual_seed(0)
    config = ModelConfig(**{**tiny, "stem": (), "patch": 4, "patch_dropout": 0.5, "dropout": 0.0})
    visual = CLIP(config, 100).visual
    img = pictures(16)
    all_BND = visual.eval()._tokens(img)  # type: ignore[operator]
    torch.testing.assert_close(visual(img), visual(img))
    visual.train()
    some_BND, others_BND = visual._tokens(img), visual._tokens(img)  # type: ignore[operator]
    assert some_BND.shape == (len(img), 1 + 8, 16)
    torch.testing.assert_close(some_BND[:, 0], all_BND[:, 0])
    matches_BNN = (some_BND[:, 1:, None] == all_BND[:, None, 1:]).all(dim=3)
    assert matches_BNN.sum(dim=2).eq(1).all(), "each is a patch of its own picture"
    assert matches_BNN.sum(dim=1).le(1).all(), "none is there twice"
    assert not torch.equal(some_BND, others_BND)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch_dropout": 0.5, "pool": "mean", "objective": "sigmoid"},
        {"objective": "bag_of_words"},
        {"name": "tiny-resnet", "width": 8, "image_size": 32},
    ],
)
def test_compiles_to_one_graph(tiny, changes: dict[str, Any]) -> None:
    values = {**tiny, **changes} if "name" not in changes else {"context_length": 16, **changes}
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = new_model(ModelConfig(**values), 100).eval()
    one: Callable[..., tuple[Tensor, ...]] = torch.compile(model, backend="eager", fullgraph=True)
    batch = pictures(values["image_size"]), captions()
    for a, b in zip(one(*batch), model(*batch), strict=True):
        torch.testing.assert_close(a, b)
    model.train()
    one(*batch)[0].sum().backward()


def test_compiled_and_checkpointed_together(make_config) -> None:
    run = build(make_config(gradient_checkpointing="full", model__dropout=0.0), 100, 1, "", ALONE)
    torch._dynamo.reset()
    one = torch.compile(run.model, backend="eager", fullgraph=True)
    batch = pictures(16), captions()
    for a, b in zip(one(*batch), run.model(*batch), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_quick_gelu_written_out_equals_autograd_to_the_bit(dtype: torch.dtype) -> None:
    x = (3 * torch.randn(40, 30)).to(dtype).requires_grad_()
    by = torch.randn(40, 30).to(dtype)
    ours = QuickGELU()(x)
    plain = x * torch.sigmoid(1.702 * x)
    assert torch.equal(ours, plain)
    grads = [torch.autograd.grad(out, x, by)[0] for out in (ours, plain)]
    assert torch.equal(*grads)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_blocks_are_compiled_one_by_one(make_config, monkeypatch) -> None:
    """The same numbers; each block is a graph of its own, without a break."""
    compiled: list[str] = []
    plain = torch.nn.Module.compile

    def eager(module: torch.nn.Module, **options: Any) -> None:
        compiled.append(type(module).__name__)
        plain(module, backend="eager", fullgraph=True, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", eager)
    torch._dynamo.reset()
    config = make_config(compile="blocks", model__dropout=0.0)
    run = build(config, 100, 1, "", ALONE)
    assert compiled == ["Block"] * 4
    other = build(config.model_copy(update={"compile": "off"}), 100, 1, "", ALONE)
    for a, b in zip(
        run.model(pictures(16), captions()), other.model(pictures(16), captions()), strict=True
    ):
        torch.testing.assert_close(a, b)
