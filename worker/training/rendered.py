"""An exam that no candidate was trained on: three-dimensional models rendered in front of photographs.

    model ── camera, sun ── rasteriser, 3 x 3 samples a pixel ── colour and coverage ─┐
                                  └── shadow map ── shadow on the ground ── photograph ┴── noise, JPEG

Models: libraries of Sweet Home 3D (furniture, tools, clothes, toys, vehicles, animals, people), with their textures.
Photographs: wallpapers without a subject (one of them, Volna, is itself rendered). No data set that the candidates name
contains either: U2-Net was trained on DUTS, IS-Net on DIS5K, BiRefNet on these and others, all of them photographs with
hand-drawn masks; `starter` on clip art, emoji, panoramas and photographs of scikit-image. The true mask is the coverage
of each pixel by the model, exact and with soft edges; the shadow is not part of it.

The pictures are not photographs: surfaces are plain, light is simple, and models stand where such things never stand.
The scores compare networks; they do not predict the quality on photographs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from worker.training import sources
from worker.training.compose import Composite
from worker.training.meshes import Floats, Linear, Mesh, ModelLibrary, to_linear
from worker.training.raster import Seen, visible

SIDE = 512
"""Side of a picture in pixels."""
COUNT = 60
SEED = 7
SAMPLES = 3
"""Samples along each side of a pixel."""

MODELS = {
    "Scopia": (
        "armchair1 armchair2 vase1 vase2 vase3 vase5 jar pottery old_jar office_chair silla_teca wood_bank ext_chair "
        "wine_bottle teapot cup creamer burlap_sofa leather_sofa modern_armchair plastic_chair kids_desk_chair "
        "basic_camera reflex_camera sneakers woman_shoes cat dog yamaha-yzr-r6 open-cardboard-box scooter tricycle "
        "stroller squeezer shopping-basket step-ladder-wood doll rabbit roasted-chicken blouson jupe casque casquette "
        "chapeau robe cone perceuse-electrique marteau meuleuse-electrique gant-textured candelabre skateboard "
        "ps4-joystick coffee_machine mannequinMale mannequinBrunette bowlWithFruits campingTent kitchenKnifeStandSet "
        "rattanArmchair toaster birthday_cake mower apples mocassin sandwichMaker dog-house letters_box bicycle"
    ),
    "BlendSwap-CC-0": (
        "armchair caballito cartoon_biplane deer kitchenaid teddyBear tableFan umbrella headphones barrel ammoBox "
        "electricGuitar basketball fireExtinguisher slippers bread chicken horse2 antiqueChair briefcase cactus "
        "handbag motorbike wheelbarrow winchesterArmchair cupcake hotDog forkLift stoneLantern woodToy mofx_mailbox "
        "cuckooClock yogurtBottle thonet"
    ),
    "BlendSwap-CC-BY": (
        "backpack beer_bottle radio suit wheelchair gift ballonFoot bike bulldog espressokettle horse siameseCat "
        "suitcase toyTrain hamburger chest laptop rowboat ella_chair_f leaf_chair xylophone"
    ),
    "Reallusion": (
        "male01 male02 male03 female01 female02 female03 boyStanding girlStanding girlSittingGround holdingMale01"
    ),
    "KatorLegaz": (
        "fire-hydrant scooter office-chair coffee-mug spray-bottle male-01-suit flashlight stapler recycling-bin "
        "mid-century-chair"
    ),
}
"""Models by library. Those with glass, or with leaves cut out by transparency, are left out when they are loaded."""

PHOTOGRAPHS = {
    sources.PLASMA_WALLPAPERS.name: (
        "BytheWater/contents/images/2560x1600.jpg",
        "ColdRipple/contents/images/2560x1600.jpg",
        "DarkestHour/contents/images/2560x1600.jpg",
        "Grey/contents/images/2560x1600.jpg",
        "OneStandsOut/contents/images/2560x1600.jpg",
        "Path/contents/images/2560x1600.jpg",
        "summer_1am/contents/images/2560x1600.jpg",
        "Volna/contents/images/5120x2880.jpg",
    ),
    sources.WALLPAPERS.name: ("Blinds.jpg", "Dune.jpg", "GreenMeadow.jpg", "RainDrops.jpg", "Storm.jpg", "Wood.jpg"),
}

_FILLS = (0.5, 0.85)
"""Range of the model's longer side on the picture, as a share of the picture."""
_DISTANCE = 4.0
"""Of the camera, in radii of the model: the perspective of a lens that is neither wide nor long."""
_TURN = 80.0
"""Largest angle in degrees between the camera and the front of the model, which faces +z."""
_MOST_FACES = 120_000
_MAP = 512
"""Side of the shadow map in pixels."""
_DETAIL = 0.004
"""Offset against a surface shadowing itself, in radii of the model."""

Colour = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A camera that looks at the middle of a model, and a sun. Directions are unit vectors."""

    centre: Floats
    radius: float
    """Of the sphere about the model."""
    floor: float
    """Height of the ground."""
    right: Floats
    up: Floats
    back: Floats
    """From the model to the camera."""
    focal: float
    """In pixels."""
    shift: Floats
    """`[2]`: where the centre of the model lies on the picture, in pixels."""
    sun: Floats
    """From the model to the sun."""

    def project(self, points: Floats) -> Floats:
        """Return x, y in pixels and the depth -1/z of points `[..., 3]`."""
        seen = (points - self.centre) @ np.stack([self.right, self.up, self.back], axis=-1)
        z = _DISTANCE * self.radius - seen[..., 2]
        flat = seen[..., :2] * (self.focal / z)[..., None] * (1, -1) + self.shift
        return np.asarray(np.concatenate([flat, -1 / z[..., None]], axis=-1))

    def rays(self, x: Floats, y: Floats) -> Floats:
        """Return the directions `[..., 3]` of the rays through points of the picture; not of unit length."""
        across, rise = (x - self.shift[0]) / self.focal, -(y - self.shift[1]) / self.focal
        return np.asarray(across[..., None] * self.right + rise[..., None] * self.up - self.back)

    @property
    def eye(self) -> Floats:
        """Return the place of the camera."""
        return np.asarray(self.centre + self.back * _DISTANCE * self.radius)


@dataclass(frozen=True)
class Light:
    """Light on a model: sky, ground and sun."""

    sky: Colour
    soil: Colour
    """`[3]` each: colours of the photograph's upper and lower part."""
    strength: float
    """Of the sun."""
    spread: float
    """See `ShadowMap.light`."""


@dataclass(frozen=True)
class ShadowMap:
    """Depths seen from the sun."""

    depths: Floats
    """`[_MAP, _MAP]`; infinite where the sun sees no model."""
    across: Floats
    """`[3, 3]`: to the map's x, y and depth, in radii of the model."""
    centre: Floats
    scale: float
    """Pixels of the map per unit."""

    def light(self, points: Floats, *, spread: float) -> Floats:
        """Return the share of the sun, 0 to 1, that reaches points `[k, 3]`.

        Args:
            points: in the space of the model.
            spread: distance of the samples in pixels of the map; larger values soften the edge of the shadow.
        """
        seen = (points - self.centre) @ self.across.T
        x, y = (seen[:, axis] * self.scale + _MAP / 2 for axis in (0, 1))
        depth = seen[:, 2] - _DETAIL * _MAP / (2 * self.scale)
        total = np.zeros(len(points))
        offsets = [(i, j) for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2)]
        for dx, dy in offsets:
            column = np.clip(x + dx * spread, 0, _MAP - 1).astype(np.int64)
            row = np.clip(y + dy * spread, 0, _MAP - 1).astype(np.int64)
            total += self.depths[row, column] >= depth
        return np.asarray(total / len(offsets))


def pictures(downloads: Path, count: int) -> Iterator[Composite]:
    """Render pictures; each depends only on `SEED` and its number.

    Args:
        downloads: folder of the packages, which are fetched if missing.
        count: of pictures.

    Raises:
        SetupError, SourceError: see `sources.fetch`.
    """
    models, grounds = _models(downloads), _photographs(downloads)
    order = np.random.default_rng(SEED).permutation(len(models))
    kept: dict[int, Mesh | None] = {}
    number = place = 0
    while number < count:
        index = int(order[place % len(order)])
        place += 1
        if index not in kept:
            library, name = models[index]
            mesh = library.load(name)
            kept[index] = mesh if mesh.opaque and 0 < len(mesh.faces) <= _MOST_FACES else None
        found = kept[index]
        if found is None:
            continue
        rng = np.random.default_rng((SEED, number))
        yield scene(found, grounds[number % len(grounds)], rng)
        number += 1


def scene(mesh: Mesh, photograph: Image.Image, rng: np.random.Generator) -> Composite:
    """Render a model in front of a photograph.

    Args:
        mesh: the model; it stands on the ground.
        photograph: RGB, at least 64 pixels a side.
        rng: source of randomness.
    """
    ground = _backdrop(photograph, rng)
    view = _view(mesh, rng)
    shadows = _shadow_map(mesh, view)
    light = Light(
        _ambient(ground[: SIDE // 3]),
        _ambient(ground[SIDE // 2 :]),
        float(rng.uniform(0.35, 1.0)),
        float(rng.uniform(0.6, 4.0)),
    )
    seen = visible(view.project(mesh.points)[mesh.faces] * (SAMPLES, SAMPLES, 1), SIDE * SAMPLES, SIDE * SAMPLES)
    lit = _shade(mesh, seen, view, shadows, light)
    colour, alpha = _resolved(seen, lit)
    bright = float(colour.mean(-1).sum() / max(float(alpha.sum()), 1e-6))
    gain = float(np.clip(rng.uniform(0.6, 1.5) * float(ground.mean()) / max(bright, 1e-4), 0.5, 2.5))
    ground = ground * _ground_light(mesh, view, shadows, light)[..., None]
    mixed = colour * gain + ground * (1 - alpha[..., None])
    return Composite(_camera(mixed, rng), np.rint(alpha * 255).astype(np.uint8))


def _models(downloads: Path) -> list[tuple[ModelLibrary, str]]:
    root = sources.fetch(sources.FURNITURE, downloads) / "usr/share/sweethome3d/furniture"
    found = []
    for name, chosen in MODELS.items():
        library = ModelLibrary(root / f"{name}.sh3f")
        found += [(library, model) for model in chosen.split()]
    return found


def _photographs(downloads: Path) -> list[Image.Image]:
    roots = {
        sources.PLASMA_WALLPAPERS.name: (sources.PLASMA_WALLPAPERS, "usr/share/wallpapers"),
        sources.WALLPAPERS.name: (sources.WALLPAPERS, "usr/share/backgrounds/mate/nature"),
    }
    found = []
    for name, (package, folder) in roots.items():
        root = sources.fetch(package, downloads) / folder
        for file in PHOTOGRAPHS[name]:
            with Image.open(root / file) as image:
                small = image.convert("RGB")
            small.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
            found.append(small)
    return found


def _backdrop(photograph: Image.Image, rng: np.random.Generator) -> Linear:
    """Crop, mirror and blur a photograph: linear light `[SIDE, SIDE, 3]`."""
    part = round(min(photograph.size) * rng.uniform(0.6, 1.0))
    left, top = (int(rng.integers(length - part + 1)) for length in photograph.size)
    cut = photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + part, top + part))
    if rng.random() < 0.5:  # noqa: PLR2004 -- half of them
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    blur = float(rng.choice((0.0, 0.0, 1.5, 4.0)))
    return to_linear(np.asarray(cut.filter(ImageFilter.GaussianBlur(blur))) / 255)


def _ambient(part: Linear) -> Colour:
    """Return the mean colour `[3]` of a part of the photograph, half as saturated: what the model reflects of it."""
    mean = part.mean((0, 1))
    return np.asarray((mean + mean.mean()) / 2, np.float32)


def _view(mesh: Mesh, rng: np.random.Generator) -> View:
    points = mesh.points[np.unique(mesh.faces)]
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    radius = float(np.linalg.norm(points - centre, axis=1).max())
    yaw, pitch = np.radians(rng.uniform(-_TURN, _TURN)), np.radians(rng.uniform(6, 32))
    back = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
    turn, rise = yaw + rng.uniform(-2.2, 2.2), np.radians(rng.uniform(30, 70))
    sun = np.array([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)])
    unit = View(centre, radius, float(low[1]), right, np.cross(back, right), back, 1.0, np.zeros(2), sun)
    flat = unit.project(points)[:, :2]
    least, most = flat.min(axis=0), flat.max(axis=0)
    focal = float(rng.uniform(*_FILLS)) * SIDE / float((most - least).max())
    size = (most - least) * focal
    room = SIDE - size
    corner = room * rng.uniform((0.15, 0.45), (0.85, 0.9))  # in the lower half, where photographs have ground
    return View(centre, radius, float(low[1]), right, unit.up, back, focal, corner - least * focal, sun)


def _shadow_map(mesh: Mesh, view: View) -> ShadowMap:
    right = np.cross((0.0, 1.0, 0.0), view.sun)
    right = right / np.linalg.norm(right)
    across = np.stack([right, np.cross(view.sun, right), -view.sun])
    scale = _MAP / (2.02 * view.radius)
    seen = (mesh.points - view.centre) @ across.T
    flat = np.concatenate([seen[:, :2] * scale + _MAP / 2, seen[:, 2:]], axis=-1)
    corners = flat[mesh.faces]
    found = visible(corners, _MAP, _MAP)
    depths = np.full((_MAP, _MAP), np.inf)
    depths[found.rows, found.columns] = (found.weights * corners[found.faces][..., 2]).sum(axis=-1)
    return ShadowMap(depths, across, view.centre, scale)


def _shade(mesh: Mesh, seen: Seen, view: View, shadows: ShadowMap, light: Light) -> Colour:
    """Return the light `[k, 3]` that visible points send to the camera: of sky, ground and sun, with highlights."""
    inverse = view.project(mesh.points)[:, 2][mesh.faces[seen.faces]]
    weights = seen.weights * inverse
    weights = weights / weights.sum(axis=-1, keepdims=True)  # of the surface instead of the screen
    points = (weights[..., None] * mesh.points[mesh.faces[seen.faces]]).sum(axis=1)
    normals = (weights[..., None] * mesh.normals[seen.faces]).sum(axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    eye = view.eye - points
    eye /= np.linalg.norm(eye, axis=-1, keepdims=True)
    normals *= np.where((normals * eye).sum(axis=-1, keepdims=True) < 0, -1, 1)  # surfaces have two sides
    colour, specular, shininess = _surface(mesh, seen, (weights[..., None] * mesh.coordinates[seen.faces]).sum(axis=1))
    facing = np.clip(normals @ view.sun, 0, None) * shadows.light(
        points + normals * view.radius * 0.01, spread=light.spread
    )
    half = eye + view.sun
    half /= np.maximum(np.linalg.norm(half, axis=-1, keepdims=True), 1e-9)
    gloss = np.clip((normals * half).sum(axis=-1), 0, None) ** np.maximum(shininess, 1)
    upward = (0.5 + 0.5 * normals[:, 1])[:, None]
    level = max(float(light.sky.mean() + light.soil.mean()) / 2, 1e-3)
    around = 0.55 * (upward * light.sky + (1 - upward) * light.soil) / level
    sun = 1.4 * light.strength * facing[:, None] * np.array([1.05, 1.0, 0.92])
    shine = specular * (gloss * facing * light.strength * 1.5)[:, None]
    return np.asarray(colour * (around + sun) + shine, np.float32)


def _surface(mesh: Mesh, seen: Seen, coordinates: Floats) -> tuple[Colour, Colour, Floats]:
    """Return colour `[k, 3]`, specular colour `[k, 3]` and shininess `[k]` of the visible points."""
    count = len(seen.faces)
    colour, specular = np.zeros((count, 3), np.float32), np.zeros((count, 3), np.float32)
    shininess = np.zeros(count)
    kinds = mesh.material[seen.faces]
    for kind in np.unique(kinds):
        material, here = mesh.materials[kind], kinds == kind
        if material.texture is None:
            colour[here] = material.colour
        else:
            height, width = material.texture.shape[:2]
            u, v = (coordinates[here] % 1).T
            rows = np.minimum(((1 - v) * height).astype(np.int64), height - 1)
            colour[here] = material.texture[rows, np.minimum((u * width).astype(np.int64), width - 1)]
        specular[here], shininess[here] = material.specular, material.shininess
    return colour, specular, shininess


def _resolved(seen: Seen, lit: Colour) -> tuple[Colour, Colour]:
    """Average the samples of each pixel: premultiplied colour `[SIDE, SIDE, 3]` and coverage `[SIDE, SIDE]`."""
    fine = np.zeros((SIDE * SAMPLES, SIDE * SAMPLES, 4), np.float32)
    fine[seen.rows, seen.columns, :3] = np.minimum(lit, 4.0)
    fine[seen.rows, seen.columns, 3] = 1
    coarse = fine.reshape(SIDE, SAMPLES, SIDE, SAMPLES, 4).mean(axis=(1, 3))
    return coarse[..., :3], coarse[..., 3]


def _ground_light(mesh: Mesh, view: View, shadows: ShadowMap, light: Light) -> Colour:
    """Return the factor `[SIDE, SIDE]` by which the model darkens the ground: its shadow, and contact with it."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    rays = view.rays(x, y)
    with np.errstate(divide="ignore"):
        reach = np.where(rays[..., 1] < 0, (view.floor - view.eye[1]) / rays[..., 1], np.inf)
    near = reach < 3 * _DISTANCE * view.radius
    places = view.eye + rays[near] * reach[near][:, None]
    away = np.linalg.norm(places - (view.centre[0], view.floor, view.centre[2]), axis=-1) / view.radius
    fade = np.clip(2.5 - away, 0, 1)
    dark = (1 - shadows.light(places, spread=light.spread)) * 0.62 * light.strength
    touch = _contact(mesh, view, places) * 0.55
    factor = np.ones((SIDE, SIDE), np.float32)
    factor[near] = (1 - np.maximum(dark, touch) * fade).astype(np.float32)
    return factor


def _contact(mesh: Mesh, view: View, places: Floats) -> Floats:
    """Return how much of the sky the model hides from places on the ground `[k, 3]`, roughly: 0 to 1."""
    scale = _MAP / (3 * view.radius)
    flat = (mesh.points - view.centre) * scale
    corners = np.stack([flat[:, 0] + _MAP / 2, flat[:, 2] + _MAP / 2, mesh.points[:, 1]], axis=-1)[mesh.faces]
    below = visible(corners, _MAP, _MAP)
    height = (below.weights * corners[below.faces][..., 2]).sum(axis=-1) - view.floor
    near = np.zeros((_MAP, _MAP))
    near[below.rows, below.columns] = np.exp(-height / (0.12 * view.radius))
    image = Image.fromarray(np.rint(near * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(_MAP / 60))
    soft = np.asarray(image, np.float64) / 255
    column, row = (((places[:, axis] - view.centre[axis]) * scale + _MAP / 2).astype(np.int64) for axis in (0, 2))
    inside = (column >= 0) & (column < _MAP) & (row >= 0) & (row < _MAP)
    found = np.zeros(len(places))
    found[inside] = soft[row[inside], column[inside]]
    return found


def _camera(linear: Colour, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Blur a little, add noise, and store as JPEG and read again: u8 `[SIDE, SIDE, 3]`."""
    srgb = np.clip(linear, 0, 1) ** (1 / 2.2) * 255
    noisy = srgb + rng.normal(0, rng.uniform(0.5, 4), srgb.shape)
    image = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(80, 96)))
    return np.asarray(Image.open(buffer).convert("RGB"))
