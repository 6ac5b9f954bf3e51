"""TIFF files tag by tag, for what no library writes."""

import struct

_CODES = {3: "H", 4: "I"}


def tiff(tags, data, *, order="<"):
    """Put a file with one strip or tile together.

    Args:
        tags: Numbers to ints, tuples of ints or bytes; place and length of the data are added.
        data: The strip.
        order: ``"<"`` or ``">"``.
    """
    tiled = 322 in tags
    tags = {
        324 if tiled else 273: 8,
        325 if tiled else 279: len(data),
        259: 1,
        277: 1,
        **tags,
    }
    content = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4) + data)
    content += bytes(len(content) % 2)
    entries = b""
    for tag, values in sorted(tags.items()):
        if isinstance(values, bytes):
            kind, packed, number = 7, values, len(values)
        else:
            values = values if isinstance(values, tuple) else (values,)
            kind = 3 if tag in (258, 259, 262, 274, 277, 284, 317, 320, 338, 339, 530) else 4
            packed = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
            number = len(values)
        if len(packed) > 4:
            place = len(content)
            content += packed + bytes(len(packed) % 2)
            packed = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, kind, number) + packed.ljust(4, b"\0")
    struct.pack_into(order + "I", content, 4, len(content))
    return bytes(content + struct.pack(order + "H", len(tags)) + entries + bytes(4))


def packed(values, bits):
    """Rows of samples [h, n] as TIFF packs them: from the highest bits on, rows of whole bytes."""
    lines = []
    for row in values:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(lines)
