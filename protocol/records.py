"""Makes, unpacks and checks what travels between server and clients.

==========  ===================================  ==========================================================
message     server -> client                     client -> server
==========  ===================================  ==========================================================
query       config                               client (name), metrics (numbers of examples, whether it
                                                 agrees to show some)
join        model, source_mixture, config        client, metrics, `mixture`; of a client alone that was not there
                                                 from the start
train       model (G, F and what a strategy      client, metrics and `classifier`, `mixture` (DualAdapt)
            adds, such as Adam's moments),       or `model` (averaging strategies)
            config; source_mixture (DualAdapt),
            source_features (federated DANN);
            `start` (the F_l to begin with, of
            one that joined)
personalise model, config                        client, metrics
illustrate  model, pretrained, config            client, metrics, `illustration` (protocol.illustration), of
                                                 clients alone that agreed to show examples
evaluate    model, config; `start` before the    client, metrics
            first training of one that joined
evaluate.   model, config; before round 1, of    client, metrics
global      the model as it is
==========  ===================================  ==========================================================

Strategies and the round loop only pass records on.

Our choice: above which size a parameter is taken for junk, and how much a record may declare.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fmtda.protocol.client_names import check_client_name
from fmtda.protocol.metrics import BadReply, check_keys
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import RunSettings

Metrics = Mapping[str, int | float | list[int] | list[float]]
Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""The name of every array with its shape and dtype."""

LARGEST_VALUE = 1e6
"""A parameter above this in size is taken for junk; trained ones stay below 100."""

MOST_ARRAYS, MOST_AXES, LONGEST_AXIS, LONGEST_WORD = 10_000, 8, 2**40, 200
"""What a record of arrays may declare at most: arrays, axes, their length, characters of a name or type."""

SETTINGS = "fmtda"
"""The key under which a message's config holds the settings of the run, as JSON."""

SERVER_ROUND = "server-round"
"""The key under which Flower's strategies put the round into a message's config."""


def to_record(tensors: Mapping[str, torch.Tensor | np.ndarray]) -> ArrayRecord:
    """Pack named tensors or arrays for the wire."""
    return ArrayRecord(
        {
            name: Array(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
            for name, value in tensors.items()
        }
    )


def from_record(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Unpack named tensors; each owns its memory."""
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}


def config_record(settings: RunSettings, server_round: int) -> ConfigRecord:
    """Pack the settings and the round as every message carries them.

    Ours are one JSON text under one key; every other key of the record is Flower's or its strategies'.
    """
    return ConfigRecord({SETTINGS: _text(settings), SERVER_ROUND: server_round})


@lru_cache(maxsize=8)
def _text(settings: RunSettings) -> str:
    return json.dumps(settings.nested())


def read_config(record: ConfigRecord) -> tuple[str, int]:
    """Unpack the settings, as the JSON text that `config_record` made, and the round out of a message's config."""
    return str(record[SETTINGS]), int(str(record[SERVER_ROUND]))


def layout_of(record: ArrayRecord) -> Layout:
    """List the names, shapes and dtypes in a record, as `check_arrays` expects them."""
    return {name: (tuple(array.shape), array.dtype) for name, array in record.items()}


def reply_to(message: Message, name: str, metrics: Metrics, **arrays: ArrayRecord) -> Message:
    """Make a client's reply: its name, its metrics, and what it uploads."""
    content = RecordDict({"client": ConfigRecord({"name": name}), "metrics": MetricRecord(dict(metrics)), **arrays})
    return Message(content=content, reply_to=message)


def sender(content: RecordDict) -> str:
    """Return the client's name in a reply; `protocol.client_names` says what a name is.

    Raises
    ------
    BadReply
        If there is none, or one that is no client's.
    """
    client = content.get("client")
    name = client.get("name") if isinstance(client, ConfigRecord) else None
    if not isinstance(name, str) or not name:
        raise BadReply("the reply names no client")
    try:
        check_client_name(name)
    except ValueError as error:
        raise BadReply(str(error)) from None
    return name


def payload_bytes(content: RecordDict) -> int:
    """Count the bytes of a message's arrays and metrics, as Flower does.

    Settings and names, about 1.5 kB, are left out: their size depends on the length of a path.
    """
    return sum(record.count_bytes() for record in content.values() if not isinstance(record, ConfigRecord))


def check_records(content: RecordDict, *array_records: str) -> None:
    """Refuse a reply unless it holds `client`, finite `metrics` and exactly the array records named, each of its kind.

    Which metrics there may be, and in which range, `protocol.metrics.check_metrics` says.

    Raises
    ------
    BadReply
        Naming what is missing, unexpected or not finite.
    """
    expected = {"client", "metrics", *array_records}
    if set(content) != expected:
        raise BadReply(f"holds the records {_few(content)}, expected {sorted(expected)}")
    kinds = {**dict.fromkeys(array_records, ArrayRecord), "client": ConfigRecord, "metrics": MetricRecord}
    for name, kind in kinds.items():
        if not isinstance(content[name], kind):
            raise BadReply(f"{name} is of the type {type(content[name]).__name__}, expected {kind.__name__}")
    if set(content.config_records["client"]) != {"name"}:
        raise BadReply(f"client holds {_few(content.config_records['client'])}, expected its name alone")
    metrics = content.metric_records["metrics"]
    check_keys(metrics)
    for key, value in metrics.items():
        try:
            finite = bool(np.isfinite(np.asarray(value, dtype=np.float64)).all())
        except (TypeError, ValueError, OverflowError):
            raise BadReply(f"metric {key} is no number") from None
        if not finite:
            raise BadReply(f"metric {key} is not finite")
    for key in ("seconds", "epsilon"):
        if isinstance(value := metrics.get(key, 0.0), list):
            raise BadReply(f"metric {key} holds {len(value)} numbers, expected one")
    for name in array_records:
        check_declaration(content.array_records[name])


def check_declaration(record: ArrayRecord) -> None:
    """Refuse a record that declares what no array is: before anybody counts with its shapes.

    Raises
    ------
    BadReply
        Naming the array.
    """
    if len(record) > MOST_ARRAYS:
        raise BadReply(f"holds {len(record)} arrays, allowed are {MOST_ARRAYS}")
    for name, array in record.items():
        shape, texts = array.shape, (name, array.dtype, array.stype)
        if not all(isinstance(text, str) and len(text) <= LONGEST_WORD for text in texts):
            raise BadReply(f"{printable(name, 80)} has a name or a type over {LONGEST_WORD} characters")
        if not isinstance(shape, tuple | list) or len(shape) > MOST_AXES:
            raise BadReply(f"{printable(name, 80)} declares a shape that no array has")
        if not all(isinstance(side, int) and 0 <= side <= LONGEST_AXIS for side in shape):
            raise BadReply(f"{printable(name, 80)} declares a shape that no array has")


def _few(names: Iterable[str]) -> str:
    """The first names of what came, as a message can hold them."""
    return printable(sorted(name[:LONGEST_WORD] for name in islice(names, 8)), 400)


def check_arrays(record: ArrayRecord, layout: Layout, unbounded: Collection[str] = ()) -> None:
    """Refuse a record whose names, shapes, dtypes or values differ from what the layout allows.

    The declared shapes are compared before any array is unpacked, so that junk costs nothing. Arrays named in
    `unbounded` may hold values of any finite size.

    Raises
    ------
    BadReply
        Naming the array and what is wrong with it.
    """
    check_declaration(record)
    if set(record) != set(layout):
        unexpected, missing = sorted(set(record) - set(layout)), sorted(set(layout) - set(record))
        raise BadReply(f"unexpected arrays {printable(unexpected[:3])}, missing arrays {printable(missing[:3])}")
    for name, (shape, dtype) in layout.items():
        declared = (tuple(record[name].shape), record[name].dtype)
        if declared != (shape, dtype):
            came = printable(declared[1], 40)
            raise BadReply(f"{name} is {came}{list(declared[0])}, expected {dtype}{list(shape)}")
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if len(record[name].data) > size + 4096:  # Flower's serialisation adds a header of about 128 bytes
            raise BadReply(f"{name} carries {len(record[name].data)} bytes, expected about {size}")
        try:
            values = record[name].numpy()
        except Exception as error:  # numpy's parser raises whatever it meets in junk, MemoryError and TokenError too
            raise BadReply(f"{name} can't be unpacked: {printable(error, 120)}") from None
        if not isinstance(values, np.ndarray):
            raise BadReply(f"{name} unpacks to {type(values).__name__}, expected an array")
        if (values.shape, str(values.dtype)) != (shape, dtype):
            raise BadReply(f"{name} unpacks to {values.dtype}{list(values.shape)}, expected {dtype}{list(shape)}")
        if not np.isfinite(values).all():
            raise BadReply(f"{name} has values that are not finite")
        if name not in unbounded and np.abs(values).max(initial=0) > LARGEST_VALUE:
            raise BadReply(f"{name} has values over {LARGEST_VALUE:g} in size")


def check_mixture(record: ArrayRecord, components: int, features: int, quantiles: int) -> None:
    """Refuse a mixture record that is no Gaussian mixture of at most `components` over `features` dimensions.

    Raises
    ------
    BadReply
        Naming the array and what is wrong with it.
    """
    check_declaration(record)
    count = record["weights"].shape[0] if "weights" in record and len(record["weights"].shape) == 1 else 0
    if not 1 <= count <= components:
        raise BadReply(f"mixture of {count} components, allowed are 1 to {components}")
    check_arrays(
        record,
        {
            "weights": ((count,), "float32"),
            "means": ((count, features), "float32"),
            "variances": ((count, features), "float32"),
            "quantiles": ((quantiles,), "float32"),
        },
        unbounded=("quantiles",),  # a log-likelihood far out in 128 dimensions is below -1e6, rightly
    )
    weights, variances = record["weights"].numpy(), record["variances"].numpy()
    if (weights < 0).any() or abs(float(weights.sum()) - 1) > 1e-3:
        raise BadReply(f"mixture weights sum to {weights.sum():.4g} (least {weights.min():.3g}), expected 1")
    if (variances <= 0).any():
        raise BadReply(f"mixture has the variance {variances.min():.3g}, expected positive ones")
    if (np.diff(record["quantiles"].numpy()) < 0).any():
        raise BadReply("mixture quantiles decrease")
