"""Opening an installation: everything that a process needs before it can serve, work or answer a command.

This is where real time and randomness come from, where adapters are loaded, and where a new installation is founded.
Whatever was opened is closed in reverse order, however the block ends.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import cast

import structlog
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from governance import seeding
from governance import service as governance
from settlement.chain import ChainAdapter
from settlement.config import Settings
from settlement.core import datamap
from settlement.core.errors import Broken, Malformed, Unavailable
from settlement.core.ids import Sources
from settlement.core.policy import Policy
from settlement.core.retention import RetentionRules
from settlement.core.signatures import SigningKey
from settlement.core.units import MICRO_PER_CU
from settlement.core.windows import WindowRules
from settlement.interpreter import check_interpreter
from settlement.keystore import open_signing_key, own_key
from settlement.services import funding
from settlement.services.context import Context
from settlement.signers import open_signer
from settlement.storage import governance as governed
from settlement.storage import invariants, schema, service_keys
from settlement.storage.database import Database
from settlement.storage.embedded import EmbeddedServer

ADAPTERS = "settlement.chain_adapters"
"""The entry-point group that chain adapters are found in, by the names that SETTLEMENT_CHAINS lists."""

FIRST_RATES_REACH_BACK = timedelta(days=36)
"""The first rate table is in force for all that may be reported: a record may be 35 days old."""

OpenAdapter = Callable[..., ChainAdapter]


@dataclass(frozen=True, slots=True)
class Installation:
    """An open installation: what use cases are given, the settings it was opened with, and where its database is."""

    context: Context
    settings: Settings
    database_url: str = field(repr=False)


def real_sources() -> Sources:
    """The machine's clock and randomness."""
    return Sources(clock=lambda: datetime.now(UTC), entropy=os.urandom)


@asynccontextmanager
async def open_installation(settings: Settings, sources: Sources | None = None) -> AsyncIterator[Installation]:
    """A migrated database, the service's key, and every configured chain, ready for use; founded if it is new.

    Raises SettlementError: what the embedded server raises, Unavailable ``database_unavailable``, Broken
    ``assertions_off``, ``packages_apart``, ``database_unsafe``, ``guard_missing``, ``signer_changed`` or
    ``chain_changed``, Malformed ``chain_unknown`` or ``chain_misconfigured``.
    """
    check_interpreter()
    sources = sources or real_sources()
    async with AsyncExitStack() as closing:
        url = closing.enter_context(open_database(settings))
        key = _signing_key(settings, sources)
        database = Database(url)
        closing.push_async_callback(database.close)
        await database.check_durability()
        chains: dict[str, ChainAdapter] = {}
        for name in settings.chains:
            chains[name] = _open_adapter(name, settings, sources)
            closing.push_async_callback(chains[name].close)
        async with database.read() as connection:
            missing = await invariants.missing_guard(connection)
        if missing is not None:
            raise Broken("guard_missing", f"the database has lost a guard: {missing}; restore it before anything else")
        context = Context(database, sources, key, chains, settings.archive_dir)
        await _found(context, settings)
        for name in settings.chains:
            await funding.open_chain(context, name)
        yield Installation(context, settings, url)


@contextmanager
def open_database(settings: Settings) -> Iterator[str]:
    """The URL of a database at the newest migration: the configured one, or that of the embedded server.

    Blocks while the server starts and migrations run. Raises Unavailable.
    """
    if settings.database_url:
        _migrate(settings.database_url)
        yield settings.database_url
        return
    make_data_dir(settings)
    server = EmbeddedServer.attach(settings.data_dir / "postgres")
    try:
        _migrate(server.url())
        yield server.url()
    finally:
        server.close(wait=os.getpid() == 1)  # in a container everything is killed as soon as PID 1 ends


def make_data_dir(settings: Settings) -> None:
    """Make the data directory. For root, other users may pass through it: PostgreSQL runs as one of them."""
    folder = settings.data_dir
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise Unavailable("data_dir_refused", f"the data directory {folder} can't be made: {error.strerror}") from None


def configure_logging(level: str) -> None:
    """Everything that is logged goes to standard error: lines for people on a terminal, JSON otherwise."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.types.Processor = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        last = structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback
        )  # without local variables
    else:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for talkative in ("apscheduler", "alembic", "httpx2", "httpcore2", "asyncio"):
        logging.getLogger(talkative).setLevel(logging.ERROR)


def _migrate(url: str) -> None:
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise Malformed("setting_malformed", "SETTLEMENT_DATABASE_URL can't be read as a URL") from None
    try:
        schema.upgrade(url)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else "no answer"
        raise Unavailable("database_unavailable", f"the database can't be used: {reason}") from None


def _signing_key(settings: Settings, sources: Sources) -> SigningKey:
    if settings.signer:
        return open_signing_key(settings.signer, os.environ)
    make_data_dir(settings)
    return own_key(settings.key_file, sources.entropy)


def _open_adapter(name: str, settings: Settings, sources: Sources) -> ChainAdapter:
    """The adapter that is registered under a chain's name; it reads its own settings from the environment."""
    found: dict[str, EntryPoint] = {each.name: each for each in entry_points(group=ADAPTERS)}
    if name not in found:
        raise Malformed("chain_unknown", f"no adapter for {name} is installed; there are {', '.join(sorted(found))}")
    open_adapter = cast(OpenAdapter, found[name].load())
    make_data_dir(settings)
    config = {"data_dir": str(settings.data_dir / "chains")}
    try:
        return open_adapter(
            config, clock=sources.clock, entropy=sources.entropy, open_signer=partial(open_signer, environ=os.environ)
        )
    except ValueError as error:
        raise Malformed("chain_misconfigured", str(error)) from None


async def _found(context: Context, settings: Settings) -> None:
    """Found a new installation; of processes that come at once, one does. Later starts compare the service's key."""
    async with context.database.read() as connection:
        published = await governed.policies(connection)
    if not published:
        now = context.sources.clock()
        since = now.replace(hour=0, minute=0, second=0, microsecond=0) - FIRST_RATES_REACH_BACK
        await governance.found(context, _first_policy(settings, since), seeding.first_rates(since))
    async with context.database.read() as connection:
        signer = await service_keys.signer(connection)
    _check_key(context, signer)


def _first_policy(settings: Settings, since: datetime) -> Policy:
    policy = replace(seeding.first_policy(since), retention=RetentionRules(data_map=datamap.digest()))
    if settings.window is not None:
        policy = replace(policy, windows=WindowRules(settings.window))
    if settings.minimum_payout_usd is None:
        return policy
    worth = policy.usd_per_cu
    micro = settings.minimum_payout_usd * MICRO_PER_CU * worth.denominator // (worth.numerator * 10**6)
    return replace(policy, minimum_payout=micro)


def _check_key(context: Context, signer: str | None) -> None:
    """A lost or mistaken key must not silently become the one that signs receipts and checkpoints from now on."""
    ours = context.key.public
    if signer != ours.kid:
        raise Broken(
            "signer_changed",
            f"this installation signs with key {signer} and not with {ours.kid}; configure that key "
            "(SETTLEMENT_SIGNER, or service-key.jwk in the data directory), or restore it from a backup",
        )
