"""The one error tree. Driver errors are translated into it at the edge of each adapter, with `from exc`.

FanrateError
├── SettingsError            a setting is wrong or two contradict each other: exit 2, before anything connects
├── EntryRefused             also an OSError: a server cannot be come in to, of a setting or a certificate
├── Problem                  an HTTP request is answered with an RFC 9457 problem document
├── BatchError               bytes from a broker are not a batch this version can count
│   ├── MalformedBatch       not a batch at all: a dead letter
│   └── NewerBatch           a wire version from the future: not malformed, the consumer stops
├── BrokerError
│   ├── BrokerUnavailable    retriable: no connection, or it was lost before the confirm
│   ├── PublishTimeout       retriable: sent on a live connection, no confirm in time; it may be stored
│   ├── BrokerFull           retriable: the broker refused, nothing was stored
│   ├── MessageTooLarge      terminal: no retry helps
│   └── BatchRefused         terminal: handled without a broker, and the store will not count it
└── StoreError
    ├── StoreUnavailable     retriable: away, loading, out of memory, read only, or misconfigured
    └── StoreRefused         terminal for this one fold: the data in it or under its keys
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus


class FanrateError(Exception):
    """Everything this project raises on purpose."""


class SettingsError(FanrateError):
    """A setting is wrong; the message names it and says what it takes."""


class EntryRefused(FanrateError, ConnectionError):
    """A server is there, and no connection with it can be made as the settings say; the message names the setting and
    the cause. It may be put right at any time, at either side. Adapters translate it, as they do any OSError. It is not
    `sure` where a server that is just coming or going would do the same."""

    def __init__(self, said: str, *, sure: bool = True) -> None:
        super().__init__(said)
        self.sure = sure


class Problem(FanrateError):
    """A request's answer when it is not a success; `core.http` turns it into a problem document.

    `kind` is the last part of the document's `type` (`urn:fanrate:problem:<kind>`); docs/http.md lists them all.
    `members` are further members of the document, such as `line` or `index`.
    """

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        self.close = close


class BatchError(FanrateError):
    """Bytes that are not a batch this version can count."""


class MalformedBatch(BatchError):
    """Not a batch; the message says where it fails."""


class NewerBatch(BatchError):
    """A wire version above `core.batches.VERSION`."""


class BrokerError(FanrateError):
    """A broker did not do what was asked."""


class BrokerUnavailable(BrokerError):
    """No connection, or the connection was lost before the answer; whether the broker acted is unknown."""


class PublishTimeout(BrokerError):
    """No confirm in time on a live connection; whether the broker stored the message is unknown."""


class BrokerFull(BrokerError):
    """The broker refused to store the message for want of space; nothing was stored."""


class MessageTooLarge(BrokerError):
    """The message is above `Features.max_message_bytes`; nothing was stored."""


class BatchRefused(BrokerError):
    """Only with DISPATCH=inline: the batch was handled and will not be counted; it is settled as such."""


class StoreError(FanrateError):
    """A store did not do what was asked; a fold that raised was not applied in part."""


class StoreUnavailable(StoreError):
    """The store is away or unwilling for now; the same call may succeed later."""


class StoreRefused(StoreError):
    """The store will never take this fold as it is."""
