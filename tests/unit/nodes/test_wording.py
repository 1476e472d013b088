"""An error that names a field of the library names the node's input instead."""

import pytest
from animatediff_v2v.nodes.wording import naming_inputs
from animatediff_v2v.pipeline import AnimateDiffV2VError

SENTENCES = {
    "start_time_seconds is -1; it must be 0 or more.": "start_time is -1; it must be 0 or more.",
    "It has 9 frames (1.0 s), start_time_seconds is 4 and so on.": (
        "It has 9 frames (1.0 s), start_time is 4 and so on."
    ),
    "steps is 0.": "num_inference_steps is 0.",
    "my steps is.mp4 is no video.": "my steps is.mp4 is no video.",
    "There is no start_time_seconds.mp4.": "There is no start_time_seconds.mp4.",
    "width is 9000.": "width is 9000.",
}


@pytest.mark.parametrize(("told", "shown"), SENTENCES.items())
def test_inputs_are_named(told, shown):
    @naming_inputs(start_time_seconds="start_time", steps="num_inference_steps")
    def fail():
        raise AnimateDiffV2VError(told)

    with pytest.raises(AnimateDiffV2VError) as raised:
        fail()
    assert str(raised.value) == shown


def test_errors_of_others_and_results_pass():
    with pytest.raises(KeyError), naming_inputs(steps="num_inference_steps"):
        raise KeyError("steps is")
    assert naming_inputs(steps="num_inference_steps")(lambda: 3)() == 3
