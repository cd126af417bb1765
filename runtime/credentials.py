"""The last filter: removes every known password and token from whatever is printed, served or written.

`ufuser.runtime.uri.mask` finds credentials by their place in a text. That fails where a library quotes or shortens a
URI, or where a password contains the delimiters. So every URI and every settings value that is given is searched for
its secrets once, by `learn`, and `clean` removes them from text of any origin, whatever their encoding.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"
SHORTEST = 3
"""Characters of a secret that is removed wherever it occurs. A shorter one would take parts of words away: it is
removed only in its place, such as `user:password@` or `password=…`."""
NAMES = (
    r"(?:(?:passw(?:or)?d|passphrase|passwort|token|secret|api[-_]?key|user-?(?:id|pw)|auth)[\w-]{0,64}"
    r"|(?:\b|(?<=[-_]))(?:pass|pwd|psw|pw))\s{0,16}=\s*"
)
"""Pattern of `name=` for names of options whose values are credentials. What repeats is bounded: the search must take
time in proportion to the text, whatever it holds."""
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_NAME = re.compile(NAMES, re.IGNORECASE)
_LONGEST, _MOST = 4096, 24
"""Characters of a text that is searched for secrets, and ends of one secret that are tried."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&(?:quot|#34);", "'": "&(?:apos|#x27|#39);"}
Filter = tuple[re.Pattern[str], tuple[str, ...]]
"""A pattern with a group for each secret, and what replaces each group."""
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Credentials:
    """Secrets, and a filter that removes them. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._searched: set[str] = set()
        self._anywhere: dict[str, str] = {}
        self._in_place: dict[str, str] = {}
        """Replacements by pattern: of secrets wherever they occur, and with what stands before them."""
        self._filters: tuple[Filter, ...] = ()

    def learn(self, text: str) -> None:
        """Search a URI, pipeline or other text as the user gave it. In doubt, more is taken for a secret."""
        if text in self._searched or not ("://" in text or "=" in text):
            return
        anywhere: dict[str, str] = {}
        in_place: dict[str, str] = {}
        for before, secret in secrets_in(text[:_LONGEST]):
            for form in {secret, unquote(secret), unquote_plus(secret)}:
                anywhere |= _anywhere(form)
                in_place |= _in_place(before, form)
        self._add(text, anywhere, in_place)

    def learn_secret(self, secret: str) -> None:
        """A password or token by itself."""
        self._add(f"\0{secret}", _anywhere(secret), {})

    def forget(self) -> None:
        """Forget all secrets; for tests."""
        with self._lock:
            self._searched, self._filters = set(), ()
            self._anywhere, self._in_place = {}, {}

    def clean(self, text: str) -> str:
        """The text with `***` in place of every known secret: as given, percent-encoded or escaped."""
        for pattern, replacements in self._filters:
            text = pattern.sub(lambda match, by=replacements: by[(match.lastindex or 1) - 1], text)  # type: ignore[misc]
        return text

    def clean_all(self, value: Any) -> Any:
        """Lists and tables, as of JSON, with all their texts cleaned. Names of fields stay."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {self.clean_key(key): self.clean_all(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean_all(item) for item in value]
        return value

    def clean_key(self, key: str) -> str:
        """The name of a field, cleaned unless it is a plain word: a password "frames" must not rename that field."""
        return key if re.fullmatch(r"[a-z0-9_-]+", key) else self.clean(key)

    def _add(self, text: str, anywhere: Mapping[str, str], in_place: Mapping[str, str]) -> None:
        with self._lock:
            self._searched.add(text)
            if anywhere.keys() <= self._anywhere.keys() and in_place.keys() <= self._in_place.keys():
                return
            self._anywhere |= anywhere
            self._in_place |= in_place
            self._filters = tuple(_filter(table) for table in (self._anywhere, self._in_place) if table)


def _filter(replacements: Mapping[str, str]) -> Filter:
    longest_first = sorted(replacements, key=len, reverse=True)
    joined = re.compile("|".join(f"({pattern})" for pattern in longest_first))
    return joined, tuple(replacements[pattern] for pattern in longest_first)


KNOWN = Credentials()
"""Those of this process. It is global because a secret must be removed from texts of every origin, such as a
library's error in another thread."""


def secrets_in(text: str) -> Iterator[tuple[str, str]]:
    """What may be a secret in a text: what stands before it, and the secret.

    For URIs that is `user:` and the password, for every `:` and `@` that may delimit it. For `name=value` it is
    `name=` and the value, for every delimiter that may end it.
    """
    schemes = list(_SCHEME.finditer(text))
    for scheme, following in zip(schemes, [*schemes[1:], None], strict=False):
        rest = text[scheme.end() : following.start() if following else None]
        for at in islice(re.finditer("@", rest), _MOST):
            user = rest[: at.start()]
            for colon in islice(re.finditer(":", user), _MOST):
                yield user[: colon.end()], user[colon.end() :]
            if not re.search("[:/?#]", user):  # a token in place of a user, else an @ in a path
                yield "", user
    for name in _NAME.finditer(text):
        value = text[name.end() :]
        in_uri = re.search(r"(^|[?&])$|://[^\s'\"]*$", text[: name.start()]) is not None
        for end in _ends(value, in_uri):
            if end:
                yield name[0], value[:end]
            if end > 1 and value[0] in "'\"":
                yield name[0] + value[0], value[1:end]


def _ends(value: str, in_uri: bool) -> Iterator[int]:
    """Where a value may end: at its quote, at a space; in a URI, which may be the whole text, at any delimiter."""
    if in_uri:
        yield from (end.start() for end in islice(re.finditer(r"[\s&;,'\"#]", value), _MOST) if end.start())
        yield len(value)
    elif value[:1] in ("'", '"'):
        yield from (end.start() for end in islice(re.finditer(value[0], value), _MOST) if end.start())
    else:
        end = re.search(r"\s", value)
        yield end.start() if end else len(value)


def _anywhere(secret: str) -> dict[str, str]:
    """The replacement of a secret by its pattern; empty if it is too short to be removed without its place."""
    secret = secret.strip()
    return {_pattern(secret): HIDDEN} if len(secret) >= SHORTEST else {}


def _in_place(before: str, secret: str) -> dict[str, str]:
    """The replacement, by pattern, of a secret and what stands before it, where secrets by themselves are removed."""
    if not secret:
        return {}
    either = f"(?:{_pattern(secret)}|{re.escape(HIDDEN)})"
    if re.search(r"=\s*['\"]?$", before):
        return {_pattern(before) + either + r"(?!\w)": f"{before}{HIDDEN}"}
    return {_pattern(before) + either + "(?:@|%(?:25)?40)": f"{HIDDEN}@"}


def _pattern(text: str) -> str:
    """Matches a text in any encoding: each character as it is, percent-encoded, escaped or as an entity."""
    return "".join(map(_any_encoding, text))


def _any_encoding(character: str) -> str:
    if _BREAKS.match(character):  # lines are joined and spaces collapsed on the way to a message
        plain = r"[\s+\x00-\x1f\x7f-\x9f]*"
    else:
        plain = r"\\*" + re.escape(character) if character in "\\'\"/" else re.escape(character)
    octets = character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "replace")
    forms = [plain, "".join(f"%(?:25)?(?i:{octet:02x})" for octet in octets)]
    if character in _ENTITIES:
        forms.append(_ENTITIES[character])
    if not character.isascii() or not character.isprintable():
        code = ord(character)
        escaped = character.encode("utf-16-be", "surrogatepass").hex()
        json_form = "".join(rf"\\+u(?i:{escaped[i : i + 4]})" for i in range(0, len(escaped), 4))
        forms += [json_form, rf"\\+(?i:x{code:02x}|u{code:04x}|U{code:08x})", r"\\+[nrtfbv]", r"\?"]
    return f"(?:{'|'.join(forms)})"
