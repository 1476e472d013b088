"""Options that change the result for speed: refusals, and the interval of guidance."""

import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.sampling import Guidance, SpeedOptions


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"deep_cache_interval": 0},
            "deep_cache_interval is 0; it must be from 1 to 10, 1 is off, 2 and 3 are usual.",
        ),
        (
            {"deep_cache_interval": 11},
            "deep_cache_interval is 11; it must be from 1 to 10, 1 is off, 2 and 3 are usual.",
        ),
        ({"guidance_start": -0.1}, "guidance_start is -0.1; it must be from 0 to 1."),
        (
            {"guidance_start": 0.6, "guidance_end": 0.5},
            "guidance_end is 0.5; it must be from 0.6 to 1.",
        ),
        ({"guidance_end": 1.5}, "guidance_end is 1.5; it must be from 0 to 1."),
    ],
)
def test_what_cannot_be_is_refused(options, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        SpeedOptions(**options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("own", "narrower", "both"),
    [
        ((0.0, 1.0), (0.0, 1.0), (7.0, 0.0, 1.0)),
        ((0.0, 1.0), (0.2, 0.8), (7.0, 0.2, 0.8)),
        ((0.3, 0.9), (0.2, 0.8), (7.0, 0.3, 0.8)),
        ((0.5, 0.6), (0.6, 1.0), (7.0, 0.6, 0.6)),
        ((0.0, 0.4), (0.6, 1.0), (1.0, 0.0, 1.0)),
    ],
)
def test_guidance_acts_where_both_let_it(own, narrower, both):
    guidance = Guidance(scale=7.0, start=own[0], end=own[1])
    speed = SpeedOptions(guidance_start=narrower[0], guidance_end=narrower[1])
    found = speed.narrowed(guidance)
    assert (found.scale, found.start, found.end) == both
