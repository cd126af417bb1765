"""Damage: bytes, text, and the parts of formats that checksums and headers would otherwise guard."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

INTERESTING = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
NUMBERS = (
    "0",
    "-0",
    "-1",
    "1",
    "0.5",
    "1e308",
    "1e309",
    "-1e309",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "NaN",
    "Infinity",
    "99999999999",
    "9" * 5000,
    "1e400",
    "0x10",
    "1_000",
    "007",
    "2.5",
    "65536",
    "true",
    "null",
    '"text"',
    "[]",
    "{}",
    "",
)
TEXTS = (
    "",
    "\0",
    "a\0b",
    "é",
    "日本",
    "\u202e",
    "\ud7ff",
    "a" * 300,
    "../../x",
    "%s%n",
    "%d",
    "{}",
    "\n",
    "\t",
    "\r\n",
    "\\",
    "'",
    '"',
    "/dev/null",
    "C:\\x",
    "-",
    "--",
    "=",
    "?",
    "&",
    "#",
    "://",
    "user:p@ss@host",
    "\x7f",
    "\x1b[31m",
)

Mutate = Callable[[bytes, Random], bytes]


def of_bytes(data: bytes, rng: Random) -> bytes:
    """A few changes anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_CHANGES)(changed, rng)
    return bytes(changed)


def _at(data: bytearray, rng: Random) -> int:
    """A place: often near the start, where headers are."""
    return rng.randrange(min(len(data), rng.choice((64, 1024, max(1, len(data)))))) if data else 0


def _flip(data: bytearray, rng: Random) -> None:
    if data:
        data[_at(data, rng)] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: Random) -> None:
    if data:
        data[_at(data, rng)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _number(data: bytearray, rng: Random) -> None:
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    value = rng.choice(INTERESTING) % (1 << 8 * struct.calcsize(form))
    at = _at(data, rng)
    data[at : at + struct.calcsize(form)] = struct.pack(form, value)


def _remove(data: bytearray, rng: Random) -> None:
    at = _at(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 16, 256))]


def _repeat(data: bytearray, rng: Random) -> None:
    at = _at(data, rng)
    part = data[at : at + rng.choice((1, 2, 4, 16, 256))]
    data[at:at] = part * rng.choice((1, 2, 16))


def _insert(data: bytearray, rng: Random) -> None:
    at = _at(data, rng)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _truncate(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _zeros(data: bytearray, rng: Random) -> None:
    at = _at(data, rng)
    length = min(len(data) - at, rng.choice((4, 16, 256)))
    data[at : at + length] = bytes(length)


_CHANGES = (_flip, _flip, _set, _set, _number, _number, _remove, _repeat, _insert, _truncate, _zeros)


def of_text(data: bytes, rng: Random) -> bytes:
    """Changes of TOML, JSON, CSV or a URI: other numbers and texts, lines moved, deep nesting; at times of bytes."""
    if rng.random() < 0.15:
        return of_bytes(data, rng)
    text = data.decode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = rng.choice(_TEXT_CHANGES)(text, rng)
    return text.encode("utf-8", "replace")


def _other_number(text: str, rng: Random) -> str:
    return _replaced(text, r"-?\d+(?:\.\d+)?(?:e-?\d+)?", rng.choice(NUMBERS), rng)


def _other_text(text: str, rng: Random) -> str:
    return _replaced(text, r"[A-Za-z_][\w.-]*", rng.choice(TEXTS), rng)


def _swapped_word(text: str, rng: Random) -> str:
    words = re.findall(r"[\w.+-]+", text)
    return _replaced(text, r"[\w.+-]+", rng.choice(words), rng) if words else text


def _replaced(text: str, pattern: str, by: str, rng: Random) -> str:
    found = list(re.finditer(pattern, text))
    if not found:
        return text + by
    match = rng.choice(found)
    return text[: match.start()] + by + text[match.end() :]


def _lines(text: str, rng: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    change = rng.randrange(3)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    else:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    return "".join(lines)


def _nested(text: str, rng: Random) -> str:
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("{a=", "}")))
    depth = rng.choice((3, 1500, 100_000))
    return _replaced(text, r"-?\d+(?:\.\d+)?|\"[^\"]*\"", opening * depth + "1" + closing * depth, rng)


def _mark(text: str, rng: Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice("[]{}()\",'=:;#?&%\\\n\0 ") + text[at + rng.randrange(2) :]


_TEXT_CHANGES = (_other_number, _other_number, _other_text, _swapped_word, _lines, _mark, _nested)


def of_json(data: bytes, rng: Random) -> bytes:
    """Valid JSON with one value replaced, removed or doubled; at times as `of_text`."""
    if rng.random() < 0.3:
        return of_text(data, rng)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return of_text(data, rng)
    places: list[tuple[dict | list, str | int]] = []
    _collect(value, places)
    for _ in range(rng.choice((1, 1, 2))):
        if places:
            holder, key = rng.choice(places)
            _change(holder, key, rng)
    try:
        return json.dumps(value).encode("utf-8", "replace")
    except ValueError:  # a number of too many digits
        return of_text(data, rng)


def _collect(value: object, places: list) -> None:
    items: Sequence = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        places.append((value, key))
        _collect(inner, places)


def _change(holder: dict | list, key: str | int, rng: Random) -> None:
    try:
        old = holder[key]  # type: ignore[index, call-overload]
    except (KeyError, IndexError):
        return
    values = (
        None,
        True,
        0,
        -1,
        1,
        1e308,
        -1e308,
        5e-324,
        2**63,
        2**64,
        10**30,
        float("nan"),
        float("inf"),
        [],
        {},
        "",
        "x",
    )
    new = rng.choice((*values, rng.choice(TEXTS), [old], {"a": old}))
    if isinstance(old, (int, float)) and rng.random() < 0.5:
        new = rng.choice((0, 0.0, -old, old * 10**30, -1, 1e308, 5e-324))
    action = rng.randrange(6)
    if action == 0:
        del holder[key]  # type: ignore[arg-type]
    elif action == 1 and isinstance(holder, list):
        holder.append(old)
    elif action == 2 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)  # type: ignore[call-overload]
    else:
        holder[key] = new  # type: ignore[index, call-overload]


def of_picture(data: bytes, rng: Random) -> bytes:
    """Bytes; of a PNG the checksums are put right half of the time, so that decoders look further."""
    changed = of_bytes(data, rng)
    return _png_checked(changed) if data.startswith(b"\x89PNG") and rng.random() < 0.5 else changed


def _png_checked(data: bytes) -> bytes:
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def of_safetensors(data: bytes, rng: Random) -> bytes:
    """Bytes, or the JSON of the header with its length put right."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = of_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def of_zip(data: bytes, rng: Random) -> bytes:
    """Bytes, or one member of the archive with its checksum put right."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error):
        return of_bytes(data, rng)
    name = rng.choice([n for n in members if n.endswith("data.pkl")] * 3 + list(members))
    members[name] = of_bytes(members[name], rng)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    return written.getvalue()


def of_onnx(data: bytes, rng: Random) -> bytes:
    """Bytes, or the graph: operators, edges, attributes, shapes, element types, metadata."""
    import onnx
    from google.protobuf.message import DecodeError

    if rng.random() < 0.4:
        return of_bytes(data, rng)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return of_bytes(data, rng)
    graph = model.graph
    names = [n for node in graph.node for n in (*node.input, *node.output)] or ["x"]
    for _ in range(rng.choice((1, 1, 2))):
        change = rng.randrange(8)
        node = rng.choice(graph.node) if graph.node else None
        if change == 0 and node is not None:
            node.op_type = rng.choice(
                ("Add", "Sub", "Div", "Relu", "Identity", "Loop", "If", "Scan", "Resize", "Foo", "")
            )
        elif change == 1 and node is not None and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif change == 2 and node is not None:
            if node.attribute and rng.random() < 0.6:
                attribute = rng.choice(node.attribute)
                attribute.i = rng.choice((0, -1, 1, 2**31, 2**62))
                for at in range(len(attribute.ints)):
                    attribute.ints[at] = rng.choice((0, -1, 1, 3, 2**31, 2**62))
            else:
                node.attribute.append(onnx.helper.make_attribute("axis", rng.choice((0, -1, 99))))
        elif change == 3:
            value = rng.choice([*graph.input, *graph.output] or [graph.input.add()])
            kind = value.type.tensor_type
            if rng.random() < 0.5:
                kind.elem_type = rng.choice((0, 1, 2, 7, 8, 10, 11, 99))
            elif kind.shape.dim:
                rng.choice(kind.shape.dim).dim_value = rng.choice((0, 1, -1, 3, 2**40))
        elif change == 4 and graph.initializer:
            tensor = rng.choice(graph.initializer)
            if rng.random() < 0.5 and tensor.dims:
                tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, -1, 1, 7, 2**40))
            else:
                tensor.raw_data = of_bytes(tensor.raw_data, rng)
        elif change == 5:
            prop = (
                rng.choice(model.metadata_props)
                if model.metadata_props
                else model.metadata_props.add(key="shape_multiple")
            )
            prop.value = rng.choice(
                (*(t for t in TEXTS if "\ud7ff" not in t), "0", "1", "8", "16", "17", "²", "9" * 5000)
            )
        elif change == 6 and node is not None:
            graph.node.remove(node)
        else:
            value = rng.choice([*graph.input, *graph.output] or [graph.input.add()])
            value.name = rng.choice((*names, "ir", "vi", "fused", ""))
    return bytes(model.SerializeToString())


def of_http(data: bytes, rng: Random) -> bytes:
    """Of a request: bytes, lines or words."""
    return of_bytes(data, rng) if rng.random() < 0.5 else of_text(data, rng)
