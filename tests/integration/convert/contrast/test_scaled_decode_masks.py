"""The mask of a JPEG decoded at reduced size is nearly the mask of the full-size JPEG."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from support.photographs import jpeg, photograph
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings, ModelSettings
from worker.images.decode import decode
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor
from worker.model.inference.engine import Engine
from worker.model.sources.bundles import locate


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    bundle = locate(ModelSettings(source="builtin:contrast", cache_dir=cache), None, ("fp32",))
    with Engine.load(bundle.variant, streams=1, threads=1, inference_precision="f32", cache_dir=cache) as engine:
        yield engine


@pytest.mark.parametrize("name", ["astronaut.png", "camera.png", "coffee.png", "coins.png", "retina.jpg"])
def test_masks_agree(engine, name):
    """The built-in network is certain about these pictures; 0.8 % of the subject's pixels may differ."""
    image = photograph(name)
    scale = (2_000_000 / (image.width * image.height)) ** 0.5
    large = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    data = jpeg(large, 88)
    whole, part = (
        decode(data, LimitSettings(), decode_target(options, engine.size))
        for options in (OutputOptions(outputs=("cutout",)), OutputOptions())
    )
    assert part.rgb.width < whole.rgb.width

    one, other = (engine.infer(to_tensor(picture, engine.size)) >= 128 for picture in (whole, part))

    assert (one & other).sum() / (one | other).sum() > 0.992
    assert np.abs(one.mean() - other.mean()) < 0.005
