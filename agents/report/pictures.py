"""What an agent means, drawn into what it sees: the predicted gripper, the Q-values, film strips.

Pictures are [H, W, 3] uint8. Whatever is drawn takes the calibration from a `CameraView`; the picture drawn into may be
larger than the view's (see `upscale`), so that lines and captions stay legible on 128×128 cameras.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation

from envs.interface import CameraView
from perception.cameras import project

Colour = tuple[int, int, int]

PREDICTED: Colour = (0, 229, 255)  # far from the heat map and from all wood, metal and buttons
AXES: tuple[Colour, ...] = ((235, 64, 52), (46, 175, 80), (52, 120, 246))  # x, y, z of the tool

FINGER = 0.045  # metres from the tool centre point back to the palm
WRIST = 0.095  # metres from the tool centre point back to the wrist
SPREAD = {True: 0.04, False: 0.006}  # metres from the middle to a finger, open and closed
AXIS = 0.035  # metres
GAP = 4  # pixels between the frames of a film strip
NEAR = 0.01  # metres; lines are cut where they come closer to the camera than this

# A perceptual ramp (after matplotlib's inferno, without its black end): low, …, high.
HEAT = np.array([[87, 16, 110], [188, 55, 84], [237, 105, 37], [251, 180, 26], [252, 255, 164]], dtype=float)


def upscale(rgb: np.ndarray, factor: int = 2) -> np.ndarray:
    """`rgb` enlarged by a whole factor, [factor H, factor W, 3]."""
    height, width = rgb.shape[:2]
    return np.asarray(Image.fromarray(rgb).resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def draw_keyframe(
    rgb: np.ndarray,
    view: CameraView,
    position: np.ndarray,
    quaternion: np.ndarray,
    gripper_open: bool,
    colour: Colour = PREDICTED,
) -> np.ndarray:
    """A copy of `rgb` with a gripper drawn at a pose: palm, wrist and two fingers as lines, and the tool's axes.

    Args:
        rgb: the view's picture, or an enlargement of it.
        position: [3] world metres of the tool centre point. quaternion: [4] xyzw.
        gripper_open: whether the fingers are drawn apart.
        colour: of the gripper; axes are always red, green, blue.

    A pose that is not finite or lies behind the camera leaves the picture as it is.
    """
    position, quaternion = np.asarray(position, float), np.asarray(quaternion, float)
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all() and np.linalg.norm(quaternion) > 0):
        return rgb.copy()
    half = SPREAD[bool(gripper_open)]
    left, right, back = np.array([0, half, 0]), np.array([0, -half, 0]), np.array([0, 0, -FINGER])
    hand = [(left, left + back), (left + back, right + back), (right + back, right), (back, np.array([0, 0, -WRIST]))]
    axes = [(np.zeros(3), AXIS * np.eye(3)[i]) for i in range(3)]

    rotation = Rotation.from_quat(quaternion).as_matrix()
    scale = rgb.shape[1] / view.rgb.shape[1]
    fine = 3  # Pillow's lines are jagged: draw large, then shrink
    canvas = Image.new("RGBA", (rgb.shape[1] * fine, rgb.shape[0] * fine))
    pen = ImageDraw.Draw(canvas)
    thick = max(2.0, rgb.shape[1] / 95) * fine

    def draw(segment: tuple[np.ndarray, np.ndarray], fill: Colour, width: float) -> None:
        ends = _visible(position + np.stack(segment) @ rotation.T, view)
        if ends is None:
            return
        pixels = (ends + 0.5) * scale * fine  # pixel centres are at integers in a view, corners in Pillow
        pen.line([tuple(p) for p in pixels], fill=(*fill, 255), width=round(width))
        for u, v in pixels:
            pen.ellipse([u - width / 2, v - width / 2, u + width / 2, v + width / 2], fill=(*fill, 255))

    for segment in hand:  # a dark rim first keeps the lines visible on any background
        draw(segment, (20, 20, 20), thick + 1.6 * fine)
    for segment in hand:
        draw(segment, colour, thick)
    for segment, axis in zip(axes, AXES, strict=True):
        draw(segment, axis, 0.75 * thick)
    picture = Image.fromarray(rgb).convert("RGBA")
    picture.alpha_composite(canvas.resize(picture.size, Image.Resampling.LANCZOS))
    return np.asarray(picture.convert("RGB"))


def overlay_heat(
    rgb: np.ndarray,
    view: CameraView,
    volume: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    strength: float = 0.6,
    sharpen: float = 1.0,
) -> np.ndarray:
    """A copy of `rgb` with a volume of probabilities projected into it as heat, summed along each line of sight.

    Every voxel becomes a Gaussian blob of its own projected size. Heat is relative to the hottest pixel of this
    picture: it shows where, not how sure.

    Args:
        volume: [X, Y, Z], not negative; need not sum to one.
        low, high: [3] world metres, the corners of the volume's box.
        strength: opacity of the hottest pixel, 0 to 1.
        sharpen: exponent on the probabilities; above 1 the peaks stand out.
    """
    volume = np.nan_to_num(np.asarray(volume, float)).clip(min=0) ** sharpen
    if volume.max() <= 0:
        return rgb.copy()
    low, high = np.asarray(low, float), np.asarray(high, float)
    edge = (high - low) / volume.shape
    index = np.argwhere(volume > 0.003 * volume.max())
    weights = volume[tuple(index.T)]
    if len(index) > 4000:  # a flat map of 100³ voxels: its strongest show all there is to see
        strongest = np.argpartition(weights, -4000)[-4000:]
        index, weights = index[strongest], weights[strongest]
    uv, depth = project(low + (index + 0.5) * edge, view.intrinsics, view.T_world_camera)
    ahead = depth > NEAR
    if not ahead.any():
        return rgb.copy()
    scale = rgb.shape[1] / view.rgb.shape[1]
    uv, depth, weights = (uv[ahead] + 0.5) * scale - 0.5, depth[ahead], weights[ahead]
    sigma = (0.6 * edge.mean() * view.intrinsics[0, 0] * scale / depth).clip(min=1.0)

    # A round Gaussian is a product of two lines, so all blobs together are one matrix product.
    height, width = rgb.shape[:2]
    across = np.exp(-0.5 * ((np.arange(width) - uv[:, :1]) / sigma[:, None]) ** 2)  # [K, W]
    down = np.exp(-0.5 * ((np.arange(height) - uv[:, 1:]) / sigma[:, None]) ** 2)  # [K, H]
    heat = down.T @ (across * weights[:, None])
    if heat.max() < 1e-6 * weights.max():  # everything lies outside the picture
        return rgb.copy()
    heat /= heat.max()
    opacity = strength * np.clip(heat / 0.35, 0, 1)[..., None] ** 1.5
    return (rgb * (1 - opacity) + heat_colours(heat) * opacity).round().astype(np.uint8)


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """[..., 3] float colours 0 to 255 of values 0 to 1."""
    place = np.clip(heat, 0, 1) * (len(HEAT) - 1)
    return np.stack([np.interp(place, np.arange(len(HEAT)), HEAT[:, channel]) for channel in range(3)], axis=-1)


def film_strip(images: Sequence[np.ndarray], captions: Sequence[str], gap: int = GAP) -> np.ndarray:
    """Pictures in a row, each with its caption in a dark band below, wrapped to the picture's width.

    Args:
        images: one or more [H, W, 3]; smaller ones are centred on the largest size.
        captions: as many texts; "" leaves the band empty.

    Returns:
        [H + band, W of all, 3].
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"a strip needs pictures and as many captions, got {len(images)} and {len(captions)}")
    height, width = max(x.shape[0] for x in images), max(x.shape[1] for x in images)
    size = max(10, width // 20)
    font = ImageFont.load_default(size=size)
    line_height = int(size * 1.35)
    wrapped = [_wrap(caption, font, width - 8) for caption in captions]
    most = max(len(lines) for lines in wrapped)
    band = most * line_height + 8 if most else 0
    strip = Image.new("RGB", (len(images) * (width + gap) - gap, height + band), (24, 26, 30))
    pen = ImageDraw.Draw(strip)
    for i, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        left = i * (width + gap)
        strip.paste(Image.fromarray(image), (left + (width - image.shape[1]) // 2, (height - image.shape[0]) // 2))
        for j, line in enumerate(lines):
            pen.text((left + 4, height + 4 + j * line_height), line, font=font, fill=(232, 234, 237))
    return np.asarray(strip)


def cut_strip(strip: Image.Image, count: int) -> list[Image.Image]:
    """The `count` pictures of a film strip again, without captions, if they were square as an evaluation's are.

    A picture that is not as wide as so many frames comes back whole.
    """
    width, rest = divmod(strip.width + GAP, count)
    if rest or width - GAP > strip.height:
        return [strip]
    return [strip.crop((left, 0, left + width - GAP, width - GAP)) for left in range(0, strip.width, width)]


def png_bytes(image: np.ndarray, colours: int | None = None) -> bytes:
    """`image` as PNG; `colours` (2 to 256) reduces it to a palette, a third of the size for a report."""
    picture = Image.fromarray(image)
    if colours is not None:
        picture = picture.quantize(colours, method=Image.Quantize.MEDIANCUT)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: np.ndarray | bytes, kind: str = "image/png") -> str:
    """A picture (or the bytes of one of type `kind`) as an address that a page carries within itself."""
    content = image if isinstance(image, bytes) else png_bytes(image)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _visible(ends: np.ndarray, view: CameraView) -> np.ndarray | None:
    """Pixels [2, 2] of a line between two world points [2, 3], cut at `NEAR`; None if all of it is behind that."""
    _, depth = project(ends, view.intrinsics, view.T_world_camera)
    if (depth < NEAR).all():
        return None
    if (depth < NEAR).any():  # depth is linear along the line
        hidden = int(depth[1] < depth[0])
        share = (NEAR - depth[hidden]) / (depth[1 - hidden] - depth[hidden])
        ends = ends.copy()
        ends[hidden] += share * (ends[1 - hidden] - ends[hidden])
    uv, _ = project(ends, view.intrinsics, view.T_world_camera)
    return np.clip(uv, -1e4, 1e4)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
