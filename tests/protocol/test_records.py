"""What travels: bits arrive as they left, and every kind of bad upload is refused by the name of its array."""

import io
import json
import time

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fmtda.adaptation.mixture import QUANTILES, fit
from fmtda.adaptation.registry import build
from fmtda.protocol.records import (
    LARGEST_VALUE,
    BadReply,
    check_arrays,
    check_mixture,
    check_records,
    config_record,
    from_record,
    layout_of,
    payload_bytes,
    read_config,
    reply_to,
    sender,
    to_record,
)

FEATURES = 6


@pytest.fixture
def arrays():
    """A classifier's arrays, as a client would send them."""
    generator = torch.Generator().manual_seed(0)
    return {"weight": torch.randn(3, 4, generator=generator), "bias": torch.randn(3, generator=generator)}


@pytest.fixture
def layout(arrays):
    return layout_of(to_record(arrays))


@pytest.fixture
def mixture():
    """The arrays of a real mixture of two components."""
    features = torch.randn(60, FEATURES, generator=torch.Generator().manual_seed(0))
    return fit(features, 2, seed=0).arrays()


def refusal(check, *arguments):
    with pytest.raises(BadReply) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def raw(data, shape=(3, 4), dtype="float32", stype="numpy.ndarray"):
    return Array(dtype=dtype, shape=shape, stype=stype, data=data)


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def header(description):
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + description.encode().ljust(117) + b"\n"


def content(**records):
    return RecordDict(
        {"client": ConfigRecord({"name": "pen/0000"}), "metrics": MetricRecord({"seconds": 1.0}), **records}
    )


def test_tensors_arrive_bit_by_bit():
    bits = torch.randint(-(2**31), 2**31 - 1, (1000,), generator=torch.Generator().manual_seed(0)).int()
    sent = {
        "any bits, NaN and denormal ones too": bits.view(torch.float32),
        "no axis": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "counts": torch.arange(5),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    received = from_record(to_record(sent))
    assert list(received) == list(sent)
    for name, tensor in sent.items():
        assert received[name].dtype == tensor.dtype
        assert received[name].shape == tensor.shape
        assert received[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_a_received_tensor_owns_its_memory(arrays):
    record = to_record(arrays)
    from_record(record)["bias"].zero_()
    assert torch.equal(from_record(record)["bias"], arrays["bias"])


def test_a_whole_network_travels():
    network, other = (build("small-cnn", 10, (3, 8, 8), seed) for seed in (0, 1))
    other.load_state_dict(from_record(to_record(network.state_dict())))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_settings_travel_as_one_text_and_flowers_keys_beside_it(settings_of):
    settings = settings_of({"seed": 5, "data.targets": "pen,blend"})
    record = config_record(settings, 4)
    assert set(record) == {"fmtda", "server-round"}
    assert json.loads(record["fmtda"]) == settings.nested()
    record["proximal-mu"] = 0.5
    assert read_config(record) == (record["fmtda"], 4)


def test_what_fits_the_layout_passes(arrays, layout):
    check_arrays(to_record(arrays), layout)
    check_arrays(to_record({"bias": arrays["bias"], "weight": torch.full((3, 4), -LARGEST_VALUE)}), layout)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (-float("inf"), "not finite"), (2e6, "over 1e+06")],
)
def test_values_that_are_not_finite_or_huge_are_refused(arrays, layout, value, reason):
    arrays["weight"][1, 2] = value
    message = refusal(check_arrays, to_record(arrays), layout)
    assert message.startswith("weight ")
    assert reason in message


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (torch.zeros(4, 3), "float32[4, 3]"),
        (torch.zeros(12), "float32[12]"),
        (torch.zeros(3, 4, dtype=torch.float64), "float64[3, 4]"),
        (torch.zeros(3, 4, dtype=torch.int32), "int32[3, 4]"),
    ],
)
def test_another_shape_or_dtype_is_refused(arrays, layout, values, found):
    message = refusal(check_arrays, to_record(arrays | {"weight": values}), layout)
    assert message == f"weight is {found}, expected float32[3, 4]"


def test_a_missing_array_is_refused(arrays, layout):
    assert "missing arrays ['bias']" in refusal(check_arrays, to_record({"weight": arrays["weight"]}), layout)


def test_an_unexpected_array_is_refused(arrays, layout):
    message = refusal(check_arrays, to_record(arrays | {"backdoor": torch.zeros(1)}), layout)
    assert "unexpected arrays ['backdoor']" in message


@pytest.mark.parametrize(
    "data",
    [
        npy(np.zeros((4, 3), np.float32)),
        npy(np.zeros((3, 5), np.float32)),
        npy(np.zeros((3, 4), np.float64)),
        npy(np.zeros((3, 4), ">f4")),
    ],
    ids=["turned", "larger", "wider", "other byte order"],
)
def test_a_payload_that_differs_from_its_declared_shape_is_refused(arrays, layout, data):
    record = to_record(arrays)
    record["weight"] = raw(data)
    assert refusal(check_arrays, record, layout).startswith("weight unpacks to ")


def zipped():
    file = io.BytesIO()
    np.savez(file, weight=np.zeros((3, 4), np.float32))
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        raw(b""),
        raw(b"junk"),
        raw(b"PK\x03\x04junk"),
        raw(zipped()),
        raw(npy(np.zeros((3, 4), np.float32))[:-8]),
        raw(header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**15,), }")),
        raw(header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }")),
        raw(header("{'descr': ((((")),
        raw(npy(np.zeros((3, 4), np.float32)), stype="torch.Tensor"),
    ],
    ids=["empty", "junk", "broken zip", "zip", "cut off", "shape as sum", "4 PB", "torn header", "not numpy's"],
)
def test_a_payload_that_cannot_be_unpacked_is_refused_by_name(arrays, layout, array):
    record = to_record(arrays)
    record["weight"] = array
    assert refusal(check_arrays, record, layout).startswith("weight ")


def test_pickled_code_is_never_run(arrays, layout, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    record = to_record(arrays)
    record["weight"] = raw(npy(np.array([Trap()], dtype=object)))
    assert "can't be unpacked" in refusal(check_arrays, record, layout)
    assert not (tmp_path / "sprung").exists()


def test_a_hundred_megabytes_of_junk_are_refused_before_they_are_unpacked(arrays, layout, monkeypatch):
    record = to_record(arrays)
    record["bias"] = raw(bytes(100_000_000), shape=(3,))
    monkeypatch.setattr(
        Array, "numpy", lambda self: pytest.fail("unpacked") if len(self.data) > 1e6 else np.zeros((3, 4), "f4")
    )
    began = time.perf_counter()
    message = refusal(check_arrays, record, layout)
    assert message == "bias carries 100000000 bytes, expected about 12"
    assert time.perf_counter() - began < 0.1


def test_an_honest_declaration_of_a_hundred_megabytes_is_refused_too(arrays, layout):
    record = to_record(arrays)
    record["bias"] = raw(bytes(100_000_000), shape=(25_000_000,))
    assert refusal(check_arrays, record, layout) == "bias is float32[25000000], expected float32[3]"


def test_a_reply_with_just_what_was_asked_for_passes(arrays):
    check_records(content(classifier=to_record(arrays)), "classifier")
    check_records(content())


def test_a_record_too_many_is_refused(arrays):
    message = refusal(check_records, content(classifier=to_record(arrays), images=to_record(arrays)), "classifier")
    assert "'images'" in message


def test_a_record_too_few_is_refused():
    assert "expected ['classifier', 'client', 'metrics']" in refusal(check_records, content(), "classifier")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [0.5, float("nan")]])
def test_a_metric_that_is_not_finite_is_refused(value):
    reply = content(metrics=MetricRecord({"loss": value}))
    assert refusal(check_records, reply) == "metric loss is not finite"


@pytest.mark.parametrize("metrics", [ConfigRecord({"seconds": "long"}), ArrayRecord()])
def test_metrics_that_are_no_metrics_are_refused(metrics):
    assert refusal(check_records, content(metrics=metrics)).endswith("expected MetricRecord")


def test_arrays_that_are_no_arrays_are_refused():
    reply = content(classifier=ConfigRecord({"weight": "heavy"}))
    assert refusal(check_records, reply, "classifier").endswith("expected ArrayRecord")


@pytest.mark.parametrize("key", ["seconds", "epsilon"])
def test_what_is_added_up_or_told_as_it_is_must_be_one_number(key):
    assert f"metric {key}" in refusal(check_records, content(metrics=MetricRecord({key: [1.0, 2.0]})))


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"client": ConfigRecord({})},
        {"client": ConfigRecord({"name": ""})},
        {"client": ConfigRecord({"name": 3})},
        {"client": MetricRecord({"name": 3})},
    ],
)
def test_a_reply_without_a_name_is_refused(records):
    assert refusal(sender, RecordDict(records)) == "the reply names no client"


def test_a_reply_names_its_client_and_goes_to_who_asked(arrays):
    asked = Message(RecordDict(), dst_node_id=7, message_type="train")
    reply = reply_to(asked, "pen/0001", {"seconds": 2.0}, classifier=to_record(arrays))
    assert sender(reply.content) == "pen/0001"
    assert reply.metadata.src_node_id == 7
    check_records(reply.content, "classifier")


def test_bytes_are_those_of_the_payload(arrays):
    small, large = content(), content(classifier=to_record({"weight": torch.zeros(1000, 100)}))
    assert payload_bytes(large) - payload_bytes(small) == pytest.approx(400_000, rel=0.01)


def mixture_refusal(arrays, components=2, features=FEATURES):
    return refusal(check_mixture, to_record(arrays), components, features, QUANTILES)


def test_a_fitted_mixture_passes(mixture):
    check_mixture(to_record(mixture), 2, FEATURES, QUANTILES)
    check_mixture(to_record(mixture), 10, FEATURES, QUANTILES)


def test_a_mixture_with_too_many_components_is_refused(mixture):
    assert mixture_refusal(mixture, components=1) == "mixture of 2 components, allowed are 1 to 1"


@pytest.mark.parametrize("weights", [np.zeros(0, "f4"), np.ones((1, 1), "f4")])
def test_a_mixture_without_components_is_refused(mixture, weights):
    assert "mixture of 0 components" in mixture_refusal(mixture | {"weights": weights})


def test_a_mixture_over_other_features_is_refused(mixture):
    assert mixture_refusal(mixture, features=7) == "means is float32[2, 6], expected float32[2, 7]"


@pytest.mark.parametrize("variance", [-0.5, 0.0])
def test_a_mixture_with_a_variance_that_is_not_positive_is_refused(mixture, variance):
    mixture["variances"][1, 3] = variance
    assert f"mixture has the variance {variance:.3g}" in mixture_refusal(mixture)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [0.0, 0.0]])
def test_mixture_weights_that_are_no_probabilities_are_refused(mixture, weights):
    mixture["weights"] = np.array(weights, "f4")
    assert "mixture weights sum to" in mixture_refusal(mixture)


def test_quantiles_may_lie_far_out(mixture):
    """A log-likelihood in 128 dimensions may well be below minus a million; nothing else in a mixture is as large."""
    mixture["quantiles"] = np.linspace(-1e9, -1e8, QUANTILES, dtype="f4")
    check_mixture(to_record(mixture), 2, FEATURES, QUANTILES)
    mixture["means"][0, 0] = 1e9
    assert mixture_refusal(mixture) == "means has values over 1e+06 in size"


def test_decreasing_quantiles_are_refused(mixture):
    mixture["quantiles"] = mixture["quantiles"][::-1].copy()
    assert mixture_refusal(mixture) == "mixture quantiles decrease"


@pytest.mark.parametrize("name", ["weights", "means", "variances", "quantiles"])
def test_a_mixture_without_one_of_its_arrays_is_refused(mixture, name):
    del mixture[name]
    assert mixture_refusal(mixture)


@pytest.mark.parametrize("name", ["means", "variances", "quantiles"])
def test_a_mixture_with_nan_is_refused_by_name(mixture, name):
    mixture[name].flat[0] = np.nan
    assert mixture_refusal(mixture) == f"{name} has values that are not finite"


@pytest.mark.parametrize(
    "array",
    [
        raw(b"", shape=(-1,)),
        raw(b"", shape=(2**62,)),
        raw(b"", shape=(1,) * 9),
        raw(b"", dtype="f" * 10_000),
        raw(b"", stype="s" * 10_000),
    ],
    ids=["negative", "endless", "nine axes", "a long type", "a long kind"],
)
def test_a_declaration_that_no_array_has_is_refused_before_anybody_counts_with_it(array, layout):
    record = ArrayRecord({"weight": array, "bias": array})
    for check in (lambda: check_arrays(record, layout), lambda: check_mixture(record, 2, FEATURES, QUANTILES)):
        message = refusal(check)
        assert message.startswith("weight ") and message.isprintable() and len(message) < 300


def test_shapes_of_words_and_a_thousand_names_are_refused(arrays, layout):
    odd = to_record(arrays)
    odd["bias"].__dict__["shape"] = ("3",)
    assert refusal(check_arrays, odd, layout) == "bias declares a shape that no array has"
    many = ArrayRecord({f"{number}\x1b": raw(b"") for number in range(10_001)})
    assert refusal(check_arrays, many, layout) == "holds 10001 arrays, allowed are 10000"
    few = ArrayRecord({f"{number}\x1b": raw(b"") for number in range(9)})
    message = refusal(check_arrays, few, layout)
    assert message.startswith("unexpected arrays") and message.isprintable()


def test_a_reply_says_its_name_and_nothing_beside(arrays):
    said = ConfigRecord({"name": "pen/0000", "more": "x" * 100})
    assert "client holds ['more', 'name']" in refusal(check_records, content(client=said))


@pytest.mark.parametrize("name", ["../x", "/etc/0000", "pen", "pen/0", "a\x00/0000", "x" * 10_000, "pen/0000\n"])
def test_a_name_that_is_none_is_refused(name):
    message = refusal(sender, RecordDict({"client": ConfigRecord({"name": name})}))
    assert "is no client's name" in message and message.isprintable() and len(message) < 400
