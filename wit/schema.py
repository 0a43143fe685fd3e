"""What the tables of a corpus mean: columns, reasons, and the column names that inputs use.

Everything here is plain data. `pipeline/` fills these tables, `train/` and people read them.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa


class Reason(StrEnum):
    """Why a row is not in the shards: a closed set, in the order in which stages apply them.
    The rules of a user (`drop` in the config) add their own names to it.

    The value is what `pairs.reason` holds; `REASONS` says what it means.
    """

    # the metadata row itself
    NO_TEXT = "no_text"
    NO_URL = "no_url"
    URL_SCHEME = "url_scheme"
    URL_EXTENSION = "url_extension"
    URL_DOMAIN = "url_domain"
    OPT_OUT_LIST = "opt_out_list"
    LICENSE = "license"
    TEXT_TOO_SHORT = "text_too_short"
    TEXT_TOO_LONG = "text_too_long"
    FILE_NAME = "file_name"
    PLACEHOLDER = "placeholder"
    URL_TAIL = "url_tail"
    FEW_LETTERS = "few_letters"
    LANGUAGE = "language"
    BOILERPLATE = "boilerplate"
    DECLARED_TOO_SMALL = "declared_too_small"
    DECLARED_ASPECT = "declared_aspect"
    LOW_SIMILARITY = "low_similarity"
    NSFW = "nsfw"
    WATERMARK = "watermark"
    LOW_AESTHETIC = "low_aesthetic"
    # rules of the user's own stand here
    NO_QUERY = "no_query"
    DUPLICATE_PAIR = "duplicate_pair"
    NEAR_DUPLICATE_CAPTION = "near_duplicate_caption"
    DUPLICATE_URL = "duplicate_url"
    NEAR_DUPLICATE_TEXT = "near_duplicate_text"
    OVER_CAP = "over_cap"
    # the download
    URL_REFUSED = "url_refused"
    ROBOTS_TXT = "robots_txt"
    DNS = "dns"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    TLS = "tls"
    PRIVATE_ADDRESS = "private_address"
    REDIRECTS = "redirects"
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    OPTED_OUT = "opted_out"
    TOO_MANY_BYTES = "too_many_bytes"
    NO_FILE = "no_file"
    # the image
    NOT_AN_IMAGE = "not_an_image"
    IMAGE_FORMAT = "image_format"
    TRUNCATED_IMAGE = "truncated_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    DECODER_CRASH = "decoder_crash"
    IMAGE_TOO_SMALL = "image_too_small"
    ASPECT_RATIO = "aspect_ratio"
    OVERLAP = "overlap"
    DUPLICATE_IMAGE = "duplicate_image"
    NEAR_DUPLICATE_IMAGE = "near_duplicate_image"


REASONS: dict[Reason, str] = {
    Reason.NO_TEXT: "the caption is null or empty after cleaning",
    Reason.NO_URL: "the URL is null, empty or can't be parsed",
    Reason.URL_SCHEME: "the URL is not http or https, or not of a wanted scheme",
    Reason.URL_EXTENSION: "the ending of the URL promises no picture",
    Reason.URL_DOMAIN: "the domain, or one above it, is on the block list",
    Reason.OPT_OUT_LIST: "the URL, its domain or the pair is on a list of those who opted out",
    Reason.LICENSE: "the declared licence is not a wanted one",
    Reason.TEXT_TOO_SHORT: "the caption has too few characters or words",
    Reason.TEXT_TOO_LONG: "the caption has too many characters or words",
    Reason.FILE_NAME: "the caption is the name of a file",
    Reason.PLACEHOLDER: "the caption is what software writes when there is none",
    Reason.URL_TAIL: "the caption repeats the last part of the URL",
    Reason.FEW_LETTERS: "too little of the caption is letters and digits",
    Reason.LANGUAGE: "the caption is surely in a language that is not wanted",
    Reason.BOILERPLATE: "the same caption stands on too many different images or domains",
    Reason.DECLARED_TOO_SMALL: "the metadata declare a shorter side of too few pixels",
    Reason.DECLARED_ASPECT: "the metadata declare an image that is too wide or too tall",
    Reason.LOW_SIMILARITY: "the score of image and text in the metadata is out of bounds",
    Reason.NSFW: "the score for unsafe images in the metadata is out of bounds",
    Reason.WATERMARK: "the score for watermarks in the metadata is out of bounds",
    Reason.LOW_AESTHETIC: "the aesthetic score in the metadata is out of bounds",
    Reason.NO_QUERY: "no query occurs in the caption",
    Reason.DUPLICATE_PAIR: "another row has the same canonical URL and caption",
    Reason.NEAR_DUPLICATE_CAPTION: "a caption of the same URL says the same in like words",
    Reason.DUPLICATE_URL: "enough other captions of the same canonical URL are kept",
    Reason.NEAR_DUPLICATE_TEXT: "a better pair, of another URL, has nearly the same caption",
    Reason.OVER_CAP: "no query of the caption brings the pair in",
    Reason.URL_REFUSED: "the URL has a port or a user name that the policy refuses",
    Reason.ROBOTS_TXT: "robots.txt of the site keeps us from the image, or fails with 5xx",
    Reason.DNS: "the host name doesn't resolve",
    Reason.CONNECTION: "the connection failed, was reset or broke off",
    Reason.TIMEOUT: "the download passed its deadline or fell below the least rate",
    Reason.TLS: "the TLS handshake or certificate failed",
    Reason.PRIVATE_ADDRESS: "the URL or a redirect leads to an address that is not public",
    Reason.REDIRECTS: "a redirect loop, too many redirects, or one to another scheme",
    Reason.HTTP_403: "the server answered 403",
    Reason.HTTP_404: "the server answered 404",
    Reason.HTTP_4XX: "the server answered another 4xx",
    Reason.HTTP_5XX: "the server answered 5xx, after retries too",
    Reason.OPTED_OUT: "headers, metadata of the image or an opt-out list forbid its use",
    Reason.TOO_MANY_BYTES: "the body is larger than the byte cap",
    Reason.NO_FILE: "the local image file is missing, unreadable or outside its folder",
    Reason.NOT_AN_IMAGE: "the body is not an image, whatever its content type says",
    Reason.IMAGE_FORMAT: "an image of a kind that this machine can't decode",
    Reason.TRUNCATED_IMAGE: "the image is cut off or damaged",
    Reason.TOO_MANY_PIXELS: "the header declares more pixels than the cap (a bomb)",
    Reason.DECODER_CRASH: "decoding the image killed its process twice, the second time alone",
    Reason.IMAGE_TOO_SMALL: "the shorter side has too few pixels",
    Reason.ASPECT_RATIO: "the image is too wide or too tall",
    Reason.OVERLAP: "an evaluation set holds the same picture",
    Reason.DUPLICATE_IMAGE: "another URL has the same bytes",
    Reason.NEAR_DUPLICATE_IMAGE: "another URL shows the same picture (perceptual hash)",
}

# Column names that people's metadata uses, by what they mean here; matched without case.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url", "img_url", "image_link"),
    "text": ("text", "caption", "captions", "alt", "alt_text", "title"),
    "path": ("image", "file", "file_name", "filename", "filepath", "path", "image_path"),
    "width": ("original_width", "width", "image_width"),
    "height": ("original_height", "height", "image_height"),
    "license": ("license", "licence"),
    "page": ("page_url", "page", "document_url", "referrer"),
    "similarity": (
        "similarity",
        "clip_similarity",
        "clip_l14_similarity_score",
        "clip_b32_similarity_score",
        "clip_similarity_vitl14",
        "clip_similarity_vitb32",
    ),
    "nsfw": ("punsafe", "nsfw_score_opennsfw2", "nsfw_score", "nsfw"),
    "watermark": ("pwatermark", "watermark_score", "watermark"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
}

# pairs/*.parquet and the catalogue's `pairs`: one row per input row, kept or not.
PAIRS: list[tuple[str, pa.DataType, str]] = [
    ("row", pa.int64(), "position in the input, from 0; unique"),
    ("uid", pa.string(), "md5 of url and raw text, 32 hex digits: identifies the pair"),
    ("rank", pa.uint64(), "first 64 bits of uid: the order of choices; of like images, after size"),
    ("source", pa.string(), "input file the row came from"),
    ("url", pa.string(), "image URL as given (a relative path for a local folder)"),
    ("domain", pa.string(), "host name of the URL, lower case, without www."),
    ("raw_text", pa.string(), "caption as given"),
    ("text", pa.string(), "caption after cleaning: what the model is trained on"),
    ("language", pa.string(), "most likely language of the caption (ISO 639-1)"),
    ("language_probability", pa.float64(), "probability of that language, 0 to 1"),
    ("license", pa.string(), "licence that the metadata declare"),
    ("declared_width", pa.int32(), "width that the metadata declare, in pixels"),
    ("declared_height", pa.int32(), "height that the metadata declare, in pixels"),
    ("similarity", pa.float64(), "score of image and text that came with the metadata"),
    ("nsfw", pa.float64(), "score for unsafe images that came with the metadata"),
    ("watermark", pa.float64(), "score for watermarks that came with the metadata"),
    ("aesthetic", pa.float64(), "aesthetic score that came with the metadata"),
    ("verdict", pa.string(), "'kept' or 'dropped'"),
    ("reason", pa.string(), "why it was dropped (see reasons); null when kept"),
    ("stage", pa.string(), "stage that dropped it; null when kept"),
    ("duplicate_of", pa.string(), "uid of the pair kept instead; null unless a duplicate"),
    ("width", pa.int32(), "width of the stored image in pixels"),
    ("height", pa.int32(), "height of the stored image in pixels"),
    ("original_width", pa.int32(), "width of the downloaded image in pixels"),
    ("original_height", pa.int32(), "height of the downloaded image in pixels"),
    ("format", pa.string(), "format of the downloaded image, e.g. JPEG"),
    ("sha256", pa.string(), "sha256 of the downloaded bytes"),
    ("phash", pa.uint64(), "64-bit perceptual hash of the image"),
    ("key", pa.string(), "key in the shard; null when dropped"),
    ("shard", pa.string(), "shard file name, e.g. 00000.tar; null when dropped"),
    ("split", pa.string(), "'train' (in shards/) or 'val' (in val/); null when dropped"),
]

# shards/index.parquet: where each sample lies, for reading without scanning.
INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("ext", pa.string()),  # of the image member: jpg, png, webp
        ("offset", pa.int64()),  # first byte of the image within the tar
        ("size", pa.int64()),  # bytes of the image
        ("text_ext", pa.string()),  # of the caption member: txt, or json in a foreign tar
        ("text_offset", pa.int64()),
        ("text_size", pa.int64()),
    ]
)

# Ends of an attempt at a URL, as img2dataset counts them in NNNNN_stats.json.
COUNTS = ("successes", "failed_to_download", "failed_to_resize")
