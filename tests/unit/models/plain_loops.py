"""AnimateDiff's temporal transformer once more, written from the papers in plain loops, float64.

Vaswani et al. 2017 (arXiv 1706.03762), Guo et al. 2023 (arXiv 2307.04725), Shazeer 2020 (arXiv
2002.05202), Wu & He 2018 (arXiv 1803.08494), Ba et al. 2016 (arXiv 1607.06450). Arrays are numpy's,
laid out as the papers have them: a video is [frames][channels][row][column].
"""

import math

import numpy as np

HEADS = 8
GROUPS = 32


def group_norm(values, scale, shift, *, groups, epsilon):
    """Normalise [channels, ...]: each group of channels with all that follows them."""
    channels = len(values)
    size = channels // groups
    result = np.empty_like(values)
    for group in range(groups):
        members = range(group * size, (group + 1) * size)
        everything = np.concatenate([values[c].ravel() for c in members])
        mean = everything.sum() / everything.size
        variance = ((everything - mean) ** 2).sum() / everything.size
        for c in members:
            result[c] = (values[c] - mean) / math.sqrt(variance + epsilon) * scale[c] + shift[c]
    return result


def layer_norm(vector, scale, shift):
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    return (vector - mean) / math.sqrt(variance + 1e-5) * scale + shift


def position_vector(position, channels):
    """Sines at even places, cosines at odd ones, wavelengths from 2 pi to 10,000 * 2 pi."""
    vector = np.zeros(channels)
    for i in range(channels // 2):
        angle = position / 10_000 ** (2 * i / channels)
        vector[2 * i] = math.sin(angle)
        vector[2 * i + 1] = math.cos(angle)
    return vector


def affine(weights, name, vector):
    """Multiply by the matrix, add the bias if there is one."""
    product = np.array([float(np.dot(row, vector)) for row in weights[f"{name}.weight"]])
    return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product


def attention(weights, name, sequence, *, key_scale):
    """Multi-head self-attention over a sequence of vectors (section 3.2 of the first paper)."""
    queries = [affine(weights, f"{name}.to_q", x) for x in sequence]
    keys = [affine(weights, f"{name}.to_k", x) * key_scale for x in sequence]
    values = [affine(weights, f"{name}.to_v", x) for x in sequence]
    width = len(sequence[0]) // HEADS
    attended = []
    for query in queries:
        heads = []
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            scores = [float(np.dot(query[part], key[part])) / math.sqrt(width) for key in keys]
            powers = [math.exp(score - max(scores)) for score in scores]
            shares = [power / sum(powers) for power in powers]
            heads.append(sum(s * value[part] for s, value in zip(shares, values, strict=True)))
        attended.append(affine(weights, f"{name}.to_out.0", np.concatenate(heads)))
    return attended


def gelu(x):
    """Return x times the probability that a standard normal variable is below it."""
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def geglu(weights, name, vector):
    both = affine(weights, name, vector)
    half = len(both) // 2
    return np.array([both[i] * gelu(both[half + i]) for i in range(half)])


def temporal_block(weights, sequence, *, key_scale):
    """Apply a block to one pixel's vectors along the frames: two attentions, then feed-forward."""
    channels = len(sequence[0])
    for number in range(2):
        name = f"transformer_blocks.0.norms.{number}"
        normed = [
            layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"]) for x in sequence
        ]
        placed = [x + position_vector(frame, channels) for frame, x in enumerate(normed)]
        name = f"transformer_blocks.0.attention_blocks.{number}"
        change = attention(weights, name, placed, key_scale=key_scale)
        sequence = [x + added for x, added in zip(sequence, change, strict=True)]
    result = []
    for x in sequence:
        name = "transformer_blocks.0.ff_norm"
        normed = layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        inner = geglu(weights, "transformer_blocks.0.ff.net.0.proj", normed)
        result.append(x + affine(weights, "transformer_blocks.0.ff.net.2", inner))
    return result


def temporal_transformer(weights, video, *, key_scale=1.0):
    """Apply the whole module to [frames, channels, height, width]; weights are arrays by name."""
    frames, _, height, width = video.shape
    entry = [
        group_norm(frame, weights["norm.weight"], weights["norm.bias"], groups=GROUPS, epsilon=1e-6)
        for frame in video
    ]
    result = video.copy()
    for row in range(height):
        for column in range(width):
            sequence = [affine(weights, "proj_in", entry[f][:, row, column]) for f in range(frames)]
            sequence = temporal_block(weights, sequence, key_scale=key_scale)
            for f in range(frames):
                result[f, :, row, column] += affine(weights, "proj_out", sequence[f])
    return result
