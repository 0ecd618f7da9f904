"""Governing: use cases over the log. Each is one transaction that writes entries, and what they decide, or nothing."""

from governance.service.founding import found, found_council, publish_policy, publish_rates, publish_ruling
from governance.service.log import current
from governance.service.proposing import comment, decide, enact_due, propose

__all__ = [
    "comment",
    "current",
    "decide",
    "enact_due",
    "found",
    "found_council",
    "propose",
    "publish_policy",
    "publish_rates",
    "publish_ruling",
]
