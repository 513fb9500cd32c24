"""Three-dimensional models from a Sweet Home 3D library (`.sh3f`): a ZIP of Wavefront OBJ, materials and textures.

Read of OBJ: v, vt, vn, f, usemtl, mtllib; of MTL: newmtl, Kd, Ks, Ns, d, Tr, map_Kd. The library's catalogue may turn a
model by a 3 x 3 matrix. Up is +y.
"""

from __future__ import annotations

import io
import itertools
import posixpath
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]
Linear = npt.NDArray[np.float32]

_OPAQUE = 0.99
_MOST_TEXELS = 4_000_000
_CORNERS = 3
_TINY = 1e-12


@dataclass(frozen=True)
class Material:
    """A surface, in linear light."""

    colour: Linear = field(default_factory=lambda: np.full(3, 0.5, np.float32))
    """`[3]`; a texture replaces it."""
    specular: Linear = field(default_factory=lambda: np.zeros(3, np.float32))
    """`[3]`."""
    shininess: float = 0.0
    """Exponent of Blinn and Phong."""
    texture: Linear | None = None
    """`[h, w, 3]`, row 0 at the top."""
    opaque: bool = True


@dataclass(frozen=True)
class Mesh:
    """Triangles with their corners' normals and texture coordinates."""

    points: Floats
    """`[n, 3]`."""
    faces: npt.NDArray[np.int64]
    """`[m, 3]`, indices of points."""
    normals: Floats
    """`[m, 3, 3]`, unit length."""
    coordinates: Floats
    """`[m, 3, 2]`, 0 to 1 over the texture, v upwards; may leave that range, where the texture repeats."""
    material: npt.NDArray[np.int64]
    """`[m]`, indices of materials."""
    materials: list[Material]

    @property
    def opaque(self) -> bool:
        """Whether no surface lets light through."""
        return all(self.materials[index].opaque for index in np.unique(self.material))


class ModelLibrary:
    """The models of one `.sh3f` file."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self._zip = zipfile.ZipFile(path)
        self._names = set(self._zip.namelist())
        self._models = {posixpath.basename(one["model"])[:-4]: one for one in self._catalogue() if "model" in one}

    def load(self, name: str) -> Mesh:
        """Read one model by the name of its OBJ file without suffix.

        Raises:
            KeyError: there is no such model.
        """
        entry = self._models[name]
        path = entry["model"].lstrip("/")
        mesh = parse_obj(self._zip.read(path).decode("latin-1"), lambda file: self._beside(path, file))
        if "modelRotation" not in entry:
            return mesh
        turn = np.array(entry["modelRotation"].split(), float).reshape(3, 3)
        return Mesh(
            mesh.points @ turn.T, mesh.faces, mesh.normals @ turn.T, mesh.coordinates, mesh.material, mesh.materials
        )

    def _catalogue(self) -> Iterator[dict[str, str]]:
        name = next(one for one in sorted(self._names) if one.endswith("PluginFurnitureCatalog.properties"))
        entries: dict[str, dict[str, str]] = {}
        for line in self._zip.read(name).decode("latin-1").splitlines():
            key, equals, value = line.partition("=")
            what, number, index = key.strip().partition("#")
            if equals and number:
                entries.setdefault(index, {})[what] = value.strip()
        yield from entries.values()

    def _beside(self, path: str, file: str) -> bytes | None:
        """Return the bytes of a file that the model at `path` names; None if the library lacks it."""
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(path), file.replace("\\", "/")))
        return self._zip.read(wanted) if wanted in self._names else None


def parse_obj(text: str, read: Callable[[str], bytes | None]) -> Mesh:
    """Return the triangles of an OBJ file; polygons are cut into fans, lines and points ignored.

    Args:
        text: of the file.
        read: the bytes of a file that it names; None if there is none.
    """
    values: dict[str, list[list[float]]] = {"v": [], "vt": [[0.0, 0.0]], "vn": []}
    corners: list[tuple[int, int, int]] = []
    kinds: list[int] = []
    names = {"": 0}
    known: dict[str, Material] = {}
    current = 0
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in values:
            values[word].append([float(v) for v in rest.split()[: 2 if word == "vt" else 3]])
        elif word == "f":
            whole = [_corner(one, values) for one in rest.split()]
            for second, third in itertools.pairwise(whole[1:]):
                corners += [whole[0], second, third]
                kinds.append(current)
        elif word == "usemtl":
            current = names.setdefault(rest.strip(), len(names))
        elif word == "mtllib" and (data := read(rest.strip())):
            known.update(parse_mtl(data.decode("latin-1"), read))
    index = np.array(corners, np.int64).reshape(-1, _CORNERS, 3)
    points, faces = np.array(values["v"]).reshape(-1, 3), index[..., 0]
    stored = np.vstack([np.array(values["vn"]).reshape(-1, 3), np.zeros((1, 3))])[index[..., 2]]
    return Mesh(
        points,
        faces,
        _unit(stored, points[faces]),
        np.array(values["vt"])[index[..., 1]],
        np.array(kinds, np.int64),
        [known.get(name, Material()) for name in names],
    )


def _unit(stored: Floats, corners: Floats) -> Floats:
    """Return normals of unit length; that of the triangle where none is stored."""
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, None, :]
    found = np.where(np.linalg.norm(stored, axis=-1, keepdims=True) < _TINY, flat, stored)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), _TINY))


def parse_mtl(text: str, read: Callable[[str], bytes | None]) -> dict[str, Material]:
    """Return the materials of an MTL file by name; colours are converted from sRGB to linear light."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            current = found.setdefault(rest.strip(), {})
        elif word in ("Kd", "Ks", "Ns", "d", "Tr", "map_Kd"):
            current[word] = rest.strip()
    return {name: _material(given, read) for name, given in found.items()}


def to_linear(srgb: npt.NDArray[np.floating]) -> Linear:
    """Convert sRGB values, 0 to 1, to linear light (gamma 2.2)."""
    return np.asarray(np.clip(srgb, 0, 1) ** 2.2, np.float32)


def _material(given: dict[str, str], read: Callable[[str], bytes | None]) -> Material:
    def colour(key: str, default: str) -> Linear:
        return to_linear(np.array(given.get(key, default).split()[:3], float))

    alpha = float(given.get("d", 1.0)) if "d" in given else 1 - float(given.get("Tr", 0.0))
    texture, solid = None, True
    data = read(given["map_Kd"].split()[-1]) if "map_Kd" in given else None
    if data:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MOST_TEXELS:
                image.thumbnail((2048, 2048))
            whole = image.convert("RGBA")
        solid = whole.getchannel("A").getextrema()[0] == 255  # noqa: PLR2004 -- opaque
        texture = to_linear(np.asarray(whole.convert("RGB")) / 255)
    return Material(
        colour("Kd", "0.5 0.5 0.5"),
        colour("Ks", "0 0 0"),
        float(given.get("Ns", 0.0)),
        texture,
        opaque=solid and alpha >= _OPAQUE,
    )


def _corner(text: str, values: dict[str, list[list[float]]]) -> tuple[int, int, int]:
    """Return indices of point, texture coordinate and normal; 0 and -1 for a missing coordinate and normal."""
    parts = [*text.split("/"), "", ""]
    point, uv, normal = (int(part) if part else 0 for part in parts[:3])
    return (
        point - 1 if point > 0 else len(values["v"]) + point,
        uv if uv >= 0 else len(values["vt"]) + uv,
        normal - 1 if normal >= 0 else len(values["vn"]) + normal,
    )
