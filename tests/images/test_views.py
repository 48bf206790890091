from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from semblance import plugins
from semblance.errors import ConfigError, InputError
from semblance.images import _warp
from semblance.images import views as room
from semblance.images.views import PRESETS, Draw, Views, apply, centre, choose_preset, draw

STILL = PRESETS["none"]


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of this file runs on both implementations."""
    if request.param == "compiled" and not _warp.available():
        pytest.skip("this installation was not compiled")
    monkeypatch.setattr(room, "available", lambda: request.param == "compiled")
    return str(request.param)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=4, h=12, w=12, c=3, low=0, high=256, seed=0):
    return torch.randint(low, high, (n, h, w, c), dtype=torch.uint8, generator=seeded(seed))


def only(n, **changed):
    """A draw that changes nothing but what is named."""
    return dataclasses.replace(draw(STILL, n, seeded()), **changed)


def reflected(x, side):
    """Mirror at the outer edges of the first and last pixel until inside, then stay on pixel centres."""
    while x < -0.5 or x > side - 0.5:
        x = -1 - x if x < -0.5 else 2 * side - 1 - x
    return min(max(x, 0.0), side - 1.0)


def slow_sample(pixels, theta, size):
    """One pixel at a time: pixel centres, affine map, reflection, four neighbours."""
    n, h, w, c = pixels.shape
    out = np.zeros((n, c, size, size))
    for i, row, column in itertools.product(range(n), range(size), range(size)):
        to = np.array([(column + 0.5) / size * 2 - 1, (row + 0.5) / size * 2 - 1, 1.0])
        across, down = np.asarray(theta[i], dtype=np.float64) @ to
        x, y = reflected((across + 1) / 2 * w - 0.5, w), reflected((down + 1) / 2 * h - 0.5, h)
        left, top = min(int(x), w - 2), min(int(y), h - 2)
        for dy, dx in itertools.product((0, 1), (0, 1)):
            weight = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
            out[i, :, row, column] += weight * pixels[i, top + dy, left + dx].numpy() / 255
    return out


def slow_brightness(view, by):
    return view * by


def slow_contrast(view, by):
    red, green, blue = view.mean((1, 2))
    return by * view + (1 - by) * (0.299 * red + 0.587 * green + 0.114 * blue)


def slow_saturation(view, by):
    return by * view + (1 - by) * (0.299 * view[0] + 0.587 * view[1] + 0.114 * view[2])


def slow_hue(view, turns):
    """By colour differences: I and Q of NTSC from R-Y and B-Y, turned, and solved back."""
    y = 0.299 * view[0] + 0.587 * view[1] + 0.114 * view[2]
    differences = np.array([[0.735514, -0.267962], [0.477648, 0.412626]])
    i, q = np.tensordot(differences, np.stack([view[0] - y, view[2] - y]), 1)
    chroma = (i + 1j * q) * np.exp(2j * np.pi * turns)
    red, blue = y + np.tensordot(np.linalg.inv(differences), np.stack([chroma.real, chroma.imag]), 1)
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue])


SLOW = {
    "brightness": slow_brightness,
    "contrast": slow_contrast,
    "saturation": slow_saturation,
    "hue": slow_hue,
}


# --- space ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 12, 17])
def test_any_affine_map_equals_a_loop_over_pixels(size):
    theta = torch.randn(4, 2, 3, generator=seeded(1)) * 0.6
    pixels = images(h=12, w=12)
    # Strides of two pixels and more are averaged first: a matter of another test.
    theta[:, :, :2] *= (1.5 * size / 12 / theta[:, :, :2].norm(dim=1)).clamp(max=1)[:, None]
    got = apply(pixels, only(4, theta=theta), size)
    np.testing.assert_allclose(got, slow_sample(pixels, theta, size), atol=2e-5)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_samples_as_the_loop_does(name):
    drawn = draw(PRESETS[name], 4, seeded(2))
    plain = only(4, theta=drawn.theta)
    pixels = images(h=9, w=9)
    np.testing.assert_allclose(apply(pixels, plain, 10), slow_sample(pixels, drawn.theta, 10), atol=2e-5)


@pytest.mark.parametrize(("views", "axis"), [({"flip": 1.0}, 3), ({"flip_vertical": 1.0}, 2)])
def test_mirrors(views, axis):
    pixels = images()
    got = apply(pixels, draw(dataclasses.replace(STILL, **views), 4, seeded()), 12)
    torch.testing.assert_close(got, centre(pixels, 12).flip(axis))


def test_mirrors_come_as_often_as_asked():
    theta = draw(dataclasses.replace(STILL, flip=0.75, flip_vertical=0.25), 4000, seeded()).theta
    assert abs((theta[:, 0, 0] < 0).float().mean() - 0.75) < 0.03
    assert abs((theta[:, 1, 1] < 0).float().mean() - 0.25) < 0.03


@pytest.mark.parametrize("degrees", [90.0, 180.0, 30.0])
def test_turns_are_rigid_and_in_range(degrees):
    theta = draw(dataclasses.replace(STILL, rotate=degrees), 3000, seeded()).theta
    turn = theta[:, :, :2]
    torch.testing.assert_close(turn @ turn.transpose(1, 2), torch.eye(2).expand(3000, 2, 2))
    assert theta[:, :, 2].abs().max() == 0
    angle = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0])).numpy()
    assert stats.kstest(angle, stats.uniform(-degrees, 2 * degrees).cdf).pvalue > 0.01


def test_a_quarter_turn_moves_pixels_as_numpy_does():
    theta = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    pixels = images(1)
    got = apply(pixels, only(1, theta=theta), 12)[0].permute(1, 2, 0)
    np.testing.assert_allclose(got, np.rot90(pixels[0].numpy(), 1) / 255, atol=1e-5)


def slow_crop(views, source):
    """RandomResizedCrop as it is usually written, one image at a time, without rounding to pixels."""
    for _ in range(10):
        area = source.uniform(*views.scale)
        ratio = math.exp(source.uniform(math.log(views.ratio[0]), math.log(views.ratio[1])))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            return width, height, source.uniform(0, 1 - width), source.uniform(0, 1 - height)
    return 1.0, 1.0, 0.0, 0.0


@pytest.mark.parametrize("views", [Views(), Views(scale=(0.7, 1.0), ratio=(0.5, 2.0))])
def test_crops_are_distributed_as_random_resized_crop(views):
    theta = draw(dataclasses.replace(views, flip=0.0), 30000, seeded(3)).theta
    width, height = theta[:, 0, 0], theta[:, 1, 1]
    left, top = (theta[:, 0, 2] + 1 - width) / 2, (theta[:, 1, 2] + 1 - height) / 2
    source = random.Random(4)
    slow = np.array([slow_crop(views, source) for _ in range(30000)])
    measured = np.stack([width, height, left, top], 1)
    for i in range(4):
        assert stats.ks_2samp(measured[:, i], slow[:, i]).pvalue > 0.001  # of ten such comparisons
    areas, slow_areas = measured[:, 0] * measured[:, 1], slow[:, 0] * slow[:, 1]
    assert stats.ks_2samp(areas, slow_areas).pvalue > 0.001
    assert areas.min() >= views.scale[0] - 1e-6
    assert areas.max() <= views.scale[1] + 1e-6
    assert (measured[:, 2:] >= -1e-6).all()
    assert (measured[:, :2] + measured[:, 2:] <= 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("ratio", "sides"), [((2.0, 3.0), (1.0, 0.5)), ((1 / 3, 1 / 2), (0.5, 1.0)), ((0.5, 2.0), (1.0, 1.0))]
)
def test_a_crop_that_never_fits_is_the_largest_of_an_allowed_ratio(ratio, sides):
    views = dataclasses.replace(STILL, scale=(1.0, 1.0), ratio=ratio)
    theta = draw(views, 5, seeded()).theta
    # Only the chance of ratio 1 exactly could have fitted.
    torch.testing.assert_close(theta[:, [0, 1], [0, 1]], torch.tensor([sides] * 5))


def test_a_turned_crop_stays_inside_where_it_can():
    views = dataclasses.replace(STILL, scale=(0.2, 0.5), rotate=180.0)
    theta = draw(views, 2000, seeded()).theta
    corners = torch.tensor([[-1.0, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]]).T
    assert (theta @ corners).abs().max() <= 1 + 1e-5
    wide = draw(dataclasses.replace(STILL, rotate=180.0), 50, seeded()).theta
    assert wide[:, :, 2].abs().max() == 0


def test_a_plain_crop_shows_stored_pixels_unchanged():
    pixels = images(40, 16, 16)
    drawn = draw(PRESETS["released"], 40, seeded())
    got = apply(pixels, drawn, 14)
    places = []
    for image, view in zip(pixels.permute(0, 3, 1, 2) / 255, got, strict=True):
        found = [
            (top, left, mirrored)
            for top, left, mirrored in itertools.product(range(3), range(3), (False, True))
            for crop in [image[:, top : top + 14, left : left + 14]]
            if torch.allclose(crop.flip(2) if mirrored else crop, view, atol=2e-5)
        ]
        assert len(found) == 1
        places.append(found[0])
    assert len({place[:2] for place in places}) > 5
    assert 20 < sum(place[2] for place in places) < 39
    middle = pixels.permute(0, 3, 1, 2)[..., 1:15, 1:15] / 255
    torch.testing.assert_close(centre(pixels, 14, 224 / 256), middle)


@pytest.mark.parametrize("crop", [None, 0.75])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_some_of_a_draw_may_stay_still(channels, crop):
    pixels, rows = (
        images(8, 16, 16)[..., :1].expand(8, 16, 16, channels).contiguous(),
        torch.arange(8) % 3 == 1,
    )
    drawn = draw(dataclasses.replace(PRESETS["photo"], rotate=40.0), 8, torch.Generator().manual_seed(0))
    got = apply(pixels, drawn.still(rows, crop), 12)
    torch.testing.assert_close(got[rows], centre(pixels, 12, crop)[rows], atol=2e-5, rtol=0)
    assert torch.equal(got[~rows], apply(pixels, drawn, 12)[~rows])


@pytest.mark.parametrize(("h", "size"), [(32, 8), (9, 3), (16, 8)])
def test_shrinking_averages_whole_blocks(h, size):
    pixels = images(h=h, w=h)
    step = h // size
    blocks = pixels.numpy().reshape(4, size, step, size, step, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(centre(pixels, size), blocks, atol=1e-5)


def test_what_shrinks_along_one_axis_only_is_not_averaged():
    theta = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]], [[0.0, -0.5, 0.0], [1.0, 0.0, 0.0]]])
    pixels = images(2, 16, 16)
    got = apply(pixels, only(2, theta=theta), 8)
    np.testing.assert_allclose(got, slow_sample(pixels, theta, 8), atol=2e-5)


def test_a_fine_pattern_shrinks_to_its_mean():
    board = (torch.arange(60)[:, None] + torch.arange(60)) % 2 * 255
    pixels = board.to(torch.uint8)[None, :, :, None].expand(1, 60, 60, 3)
    got = centre(pixels, 16)
    assert (got - 0.5).abs().max() < 0.2


def test_images_of_several_strides_share_a_batch():
    pixels = images(6, 32, 32)
    sides = torch.tensor([1.0, 0.2, 0.6, 1.0, 0.5, 0.3])
    theta = torch.zeros(6, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = sides
    together = apply(pixels, only(6, theta=theta), 8)
    for i in range(6):
        alone = apply(pixels[i : i + 1], only(1, theta=theta[i : i + 1]), 8)
        torch.testing.assert_close(together[i : i + 1], alone)


# --- colour --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(SLOW)))
def test_colour_equals_explicit_formulas_in_any_order(order):
    pixels = images(low=100, high=150, seed=5)
    factors = {
        "brightness": torch.tensor([0.7, 1.3, 1.0, 1.2]),
        "contrast": torch.tensor([1.4, 0.6, 0.8, 1.0]),
        "saturation": torch.tensor([0.6, 1.4, 1.2, 0.0]),
        "hue": torch.tensor([0.1, -0.1, 0.5, 0.25]),
    }
    got = apply(pixels, only(4, **factors), 12)
    for i in range(4):
        view = pixels[i].numpy().transpose(2, 0, 1) / 255
        for name in order:
            view = SLOW[name](view, float(factors[name][i]))
        assert view.min() > 0
        assert view.max() < 1  # or the clamp would hide a difference
        np.testing.assert_allclose(got[i], view, atol=5e-4)


@pytest.mark.parametrize("name", list(SLOW))
@pytest.mark.parametrize("by", [0.0, 0.3, 1.7])
def test_each_colour_factor_alone(name, by):
    pixels = images(2)
    got = apply(pixels, only(2, **{name: torch.full((2,), by)}), 12)
    for i in range(2):
        view = SLOW[name](pixels[i].numpy().transpose(2, 0, 1) / 255, by)
        np.testing.assert_allclose(got[i], np.clip(view, 0, 1), atol=2e-3 if name == "hue" else 1e-5)


def test_contrast_reads_the_mean_of_the_view_not_of_the_image():
    pixels = torch.zeros(1, 12, 12, 3, dtype=torch.uint8)
    pixels[:, :6, :6] = 200
    theta = torch.tensor([[[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]])
    got = apply(pixels, only(1, theta=theta, contrast=torch.zeros(1)), 6)
    torch.testing.assert_close(got, torch.full((1, 3, 6, 6), 200 / 255))


def test_grey_is_luma_three_times_and_ends_saturation_and_hue():
    pixels = images()
    grey = torch.tensor([True, False, True, False])
    got = apply(pixels, only(4, grey=grey, hue=torch.full((4,), 0.1) * grey), 12)
    luma = (pixels.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)).float() / 255
    torch.testing.assert_close(got[::2], luma[::2, None].expand(2, 3, 12, 12))
    torch.testing.assert_close(got[1::2], centre(pixels, 12)[1::2])


@pytest.mark.parametrize("name", ["photo", "grey", "microscopy"])
def test_grey_images_stay_grey(name):
    pixels = images(c=1).expand(4, 12, 12, 3)
    got = apply(pixels, draw(dataclasses.replace(PRESETS[name], jitter=1.0), 4, seeded(6)), 12)
    assert (got - got.mean(1, keepdim=True)).abs().max() < 1e-6


@pytest.mark.parametrize("c", [1, 12])
def test_other_channel_counts_take_brightness_and_contrast_per_channel(c):
    pixels = images(c=c, low=80, high=170)
    drawn = draw(Views(), 4, seeded(7))
    got = apply(pixels, drawn, 10)
    for i, view in enumerate(slow_sample(pixels, drawn.theta, 10)):
        bright, contrast = float(drawn.brightness[i]), float(drawn.contrast[i])
        means = bright * view.mean((1, 2), keepdims=True)
        expected = contrast * bright * view + (1 - contrast) * means
        np.testing.assert_allclose(got[i], np.clip(expected, 0, 1), atol=2e-5)


def test_colour_factors_are_distributed_as_color_jitter():
    drawn = draw(Views(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1), 6000, seeded(8))
    changed = drawn.brightness != 1
    assert abs(changed.float().mean() - 0.8) < 0.02
    assert abs(drawn.grey.float().mean() - 0.2) < 0.02
    assert (drawn.hue[~changed] == 0).all()
    assert (drawn.contrast[~changed] == 1).all()
    for values, low, high in (
        (drawn.brightness, 0.6, 1.4),
        (drawn.contrast, 0.0, 2.5),
        (drawn.saturation, 0.8, 1.2),
        (drawn.hue, -0.1, 0.1),
    ):
        assert stats.kstest(values[changed].numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.01


# --- a second reference --------------------------------------------------------------------------------


def test_kornia_agrees_on_colour():
    kornia = pytest.importorskip("kornia")
    pixels = images(3)
    plain = centre(pixels, 12).contiguous()
    factors = torch.tensor([0.5, 1.0, 1.6])
    enhance = kornia.enhance
    for name, reference in (
        ("brightness", enhance.adjust_brightness_accumulative),
        ("contrast", enhance.adjust_contrast_with_mean_subtraction),
        ("saturation", enhance.adjust_saturation_with_gray_subtraction),
    ):
        got = apply(pixels, only(3, **{name: factors}), 12)
        torch.testing.assert_close(got, reference(plain, factors), atol=2e-4, rtol=0, check_stride=False)
    grey = apply(pixels, only(3, grey=torch.ones(3, dtype=torch.bool)), 12)
    torch.testing.assert_close(
        grey, kornia.color.rgb_to_grayscale(plain).expand(3, 3, 12, 12), atol=2e-4, rtol=0, check_stride=False
    )


def test_kornia_agrees_on_space():
    kornia = pytest.importorskip("kornia")
    pixels = images(3)
    plain = centre(pixels, 12).contiguous()
    mirrored = apply(pixels, draw(dataclasses.replace(STILL, flip=1.0), 3, seeded()), 12)
    torch.testing.assert_close(mirrored, kornia.geometry.transform.hflip(plain), check_stride=False)
    theta = draw(PRESETS["sky"], 3, seeded(9)).theta
    # Kornia's matrices take input to output pixels.
    to_pixels = torch.tensor([[6.0, 0.0, 5.5], [0.0, 6.0, 5.5], [0.0, 0.0, 1.0]])
    full = torch.cat([theta, torch.tensor([[[0.0, 0.0, 1.0]]]).expand(3, 1, 3)], 1)
    forward = torch.linalg.inv(to_pixels @ full @ torch.linalg.inv(to_pixels))
    reference = kornia.geometry.transform.warp_affine(
        plain, forward[:, :2], (12, 12), padding_mode="reflection", align_corners=False
    )
    got = apply(pixels, only(3, theta=theta), 12)
    torch.testing.assert_close(got, reference, atol=1e-4, rtol=0, check_stride=False)


# --- the whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PRESETS))
def test_values_stay_in_range_and_the_layout_is_channels_last(name):
    got = apply(images(8), draw(PRESETS[name], 8, seeded(10)), 16)
    assert got.shape == (8, 3, 16, 16)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= got.min() < got.max() <= 1


@pytest.mark.parametrize("size", [12, 8, 20, 5])
def test_a_draw_that_changes_nothing_is_the_test_transform(size):
    pixels = images()
    got = apply(pixels, draw(STILL, 4, seeded()), size)
    assert torch.equal(got, centre(pixels, size))
    np.testing.assert_allclose(centre(pixels, 12), pixels.permute(0, 3, 1, 2) / 255, atol=1e-7)


def test_the_middle_is_cropped_and_resized_as_the_loop_does():
    pixels = images(2)
    theta = np.array([[[0.7, 0, 0], [0, 0.7, 0]]] * 2)
    np.testing.assert_allclose(centre(pixels, 9, 0.7), slow_sample(pixels, theta, 9), atol=2e-5)


@pytest.mark.parametrize("name", ["photo", "sky", "released"])
def test_rows_of_a_draw_are_the_draw_of_those_rows(name):
    pixels = images(10)
    drawn = draw(PRESETS[name], 10, seeded(11))
    whole = apply(pixels, drawn, 12)
    first, second = drawn[:4], drawn[4:]
    assert (len(first), len(second)) == (4, 6)
    parts = [apply(pixels[:4], first, 12), apply(pixels[4:], second, 12)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)


def test_how_many_rows_are_computed_together_changes_nothing(monkeypatch):
    pixels = images(10)
    drawn = draw(Views(), 10, seeded(12))
    whole = apply(pixels, drawn, 12)
    monkeypatch.setattr(room, "BLOCK", 1)
    torch.testing.assert_close(apply(pixels, drawn, 12), whole, atol=1e-6, rtol=0)


def test_a_seed_decides_everything_and_takes_the_same_from_the_generator():
    generators = [seeded(13) for _ in PRESETS]
    for views, generator in zip(PRESETS.values(), generators, strict=True):
        once, again = draw(views, 6, generator), draw(views, 6, seeded(13))
        for field in dataclasses.fields(Draw):
            assert torch.equal(getattr(once, field.name), getattr(again, field.name))
        assert not torch.equal(draw(Views(), 6, seeded(14)).theta, draw(Views(), 6, seeded(13)).theta)
    assert len({bytes(generator.get_state().numpy()) for generator in generators}) == 1


def test_no_images_give_no_views():
    drawn = draw(Views(), 0, seeded())
    assert apply(images(0), drawn, 8).shape == (0, 3, 8, 8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="4 images cannot take what was drawn for 3"):
        apply(images(4), draw(Views(), 3, seeded()), 8)
    with pytest.raises(InputError, match=r"torch.float32 \(4, 12, 12, 3\)"):
        centre(images(4).float(), 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 1.2)},
        {"scale": (0.5,)},
        {"ratio": (2.0, 1.0)},
        {"flip": 1.5},
        {"hue": 0.6},
        {"contrast": -0.1},
        {"crop": 0.0},
        {"rotate": -5.0},
        {"grey": math.nan},
    ],
)
def test_ranges_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"views.{next(iter(wrong))}"):
        Views(**wrong)


def test_every_field_reads_from_the_command_line():
    hints = {"scale": "0.5,1", "ratio": "1,2", "crop": "0.875", "flip": "0.25"}
    from typing import get_type_hints

    kinds = get_type_hints(Views)
    read = Views(**{key: plugins.read(key, value, kinds[key]) for key, value in hints.items()})
    assert read == Views(scale=(0.5, 1.0), ratio=(1.0, 2.0), crop=0.875, flip=0.25)


def test_a_preset_is_chosen_from_pixels():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    grey = np.repeat(colour[..., :1], 3, 3)
    ink = np.where(rng.random((4, 16, 16, 1)) < 0.1, 20, 240).astype(np.uint8).repeat(3, 3)
    dark_sky = rng.integers(0, 40, (4, 16, 16, 1), dtype=np.uint8).repeat(3, 3)
    assert choose_preset(colour) == "photo"
    assert choose_preset(grey) == "grey"
    assert choose_preset(grey[..., :1]) == "grey"
    assert choose_preset(ink) == "document"
    assert choose_preset(255 - ink) == "document"
    assert choose_preset(dark_sky) == "grey"
    assert choose_preset(np.concatenate([ink, colour[:1]])) == "photo"
    with pytest.raises(InputError, match="sample"):
        choose_preset(colour[:0])


@pytest.mark.parametrize("c", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("name", ["photo", "sky"])
@pytest.mark.parametrize("path", ["compiled"], indirect=True)
def test_compiled_views_are_those_of_torch(c, kind, name, monkeypatch, path):
    pixels = torch.randint(0, 65536 if kind is torch.uint16 else 256, (9, 21, 17, c), dtype=torch.int32).to(
        kind
    )
    for size in (1, 8, 30):
        drawn = draw(PRESETS[name], 9, torch.Generator().manual_seed(c))
        compiled = apply(pixels, drawn, size)
        monkeypatch.setattr(room, "available", lambda: False)
        plain = apply(pixels, drawn, size)
        monkeypatch.setattr(room, "available", lambda: True)
        assert compiled.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(compiled, plain, atol=3e-5, rtol=0)


def test_threads_change_nothing(monkeypatch):
    pixels = torch.randint(0, 256, (7, 40, 40, 3), dtype=torch.uint8)
    drawn = draw(PRESETS["sky"], 7, torch.Generator().manual_seed(0))
    alone = apply(pixels, drawn, 24)
    monkeypatch.setattr(_warp, "SHARE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(apply(pixels, drawn, 24), alone)
