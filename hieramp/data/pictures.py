"""From the bytes of a picture file to RGB: upright, 8 bits a channel, without transparency."""

from io import BytesIO

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError

from hieramp.errors import UserError

# What Pillow opens that people keep photographs in. Vector formats (EPS, PDF) are left out: they run a program.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF", "JPEG2000", "TGA", "AVIF")
ENDINGS = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "gif", "jp2")
    + ("j2k", "tga", "avif")
)
MAX_FILE_BYTES = 2**28  # a larger file is no photograph
MAX_ASPECT = 8  # what is longer is cropped before it is resized: a line of a million pixels would fill the memory


def is_picture(name: str) -> bool:
    """Whether a file name has one of the usual endings of pictures."""
    return "." in name and name.rsplit(".", 1)[1].lower() in ENDINGS


def read_picture(data: bytes, name: str) -> Image.Image:
    """The picture in `data`, RGB; of an animation the first frame.

    Raises:
        UserError: it cannot be read; `name` is named.
    """
    Image.init()
    try:
        with Image.open(BytesIO(data), formats=[form for form in FORMATS if form in Image.OPEN]) as image:
            image.load()
            return to_rgb(image)
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        ValueError,
        OverflowError,
        Image.DecompressionBombError,
    ) as error:
        reason = "no picture that is known here" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{name} cannot be read as an image ({reason})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB as a viewer shows it: turned by its EXIF tag, 16 bits scaled to 8, transparency on white.

    Raises:
        UserError: its values have no known range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (I;16, I) divided by 257, so that 65535 becomes 255; floats (F) from 0 to 1, or as they are to 255.

    Pillow's own conversion cuts all that is over 255, which turns a photograph white.
    """
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):
        raise UserError(f"its values run from {low:g} to {high:g}: save it with 8 or 16 bits a channel")
    if image.mode == "F":
        factor = 255.0 if high <= 1 else 1.0 if high <= 255 else 1 / 257
    else:
        # Pillow opens 16-bit files as I;16 or, in older versions, as I; an I whose values fit 8 bits is taken as such
        factor = 1.0 if image.mode == "I" and high <= 255 else 1 / 257
    return Image.fromarray((values * factor).round().astype(np.uint8))


def pixels_of(image: Image.Image) -> torch.Tensor:
    """An RGB picture as uint8 (3, H, W)."""
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").contiguous()


def to_square(image: Image.Image, size: int) -> Image.Image:
    """RGB, shorter side resized to `size` pixels (Lanczos), centre crop."""
    if image.mode != "RGB":
        image = to_rgb(image)
    if image.size == (size, size):
        return image
    image = _without_long_ends(image)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _without_long_ends(image: Image.Image) -> Image.Image:
    """The centre of a picture that is more than MAX_ASPECT times as long as wide; the ends would be cropped anyway."""
    longest = MAX_ASPECT * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
