"""The study: what is tried next and what is known already, in a database that several searches may share.

The recipes as they are written come first, then variations: which recipe is varied is decided in `bases`, Optuna
proposes the values (tree-structured Parzen estimator over three objectives: drop, size, pace). Trying is in `search`.
Optuna is imported when a study is opened, not before.
"""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from edge_compression.evaluation.candidate import Candidate, CandidateRecord
from edge_compression.recipes.recipe import Recipe, varied
from edge_compression.recipes.search_space import Parameter, ParameterRange, Value, text
from edge_compression.search.base_selection import Tried, next_base
from edge_contracts.codec import encode
from edge_contracts.errors import ContractError, OperatorError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial
    from sqlalchemy import Engine

BASE = "base"
"""The parameter that chooses the recipe to vary."""

RECIPE, TRYING, VALUES, RECORD, WORKER, LOST = "recipe", "trying", "values", "record", "worker", "lost"
"""Attributes of a trial: the recipe it was queued for, the one it tries, what came of it, who runs it, how often it was
lost."""

OPEN_TRIES, OPEN_WAIT_S = 5, 0.5
"""Two searches that create the tables of a new database at the same moment disturb each other."""

LOCK_WAIT_S = 60.0
"""How long a writer of the default SQLite file waits for another."""

STALE = timedelta(hours=2)
"""A trial of another machine that began so long ago is taken for lost."""

NAMELESS = timedelta(seconds=10)
"""A trial that nobody has put a name on for so long was lost between being taken and being named."""

MAX_LOST = 2
"""So often may a trial die with its whole search; then the recipe is to blame."""

MAX_REPEATS = 40
"""Proposals in a row that were all tried before: there is nothing new to try."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One trial that was handed out; `varied`: its recipe is a variation."""

    recipe: Recipe
    trial: Trial
    varied: bool


class Study:
    """One study. Not thread-safe: the search asks under its lock."""

    def __init__(self, url: str, name: str, recipes: Sequence[Recipe]) -> None:
        """Open or begin the study `name` in the database at `url`. Raises OperatorError when that cannot be."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._recipes = optuna, {recipe.id: recipe for recipe in recipes}
        self._bases = [recipe.id for recipe in recipes if recipe.parameters]
        self._study = _open(url, name)
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"
        self._barren = False
        self._give_up_lost()

    def finished(self) -> list[CandidateRecord]:
        """Return what is known of every candidate tried, in the order of trying."""
        trials = self._study.get_trials(deepcopy=False)
        return [
            msgspec.json.decode(one.user_attrs[RECORD], type=CandidateRecord)
            for one in trials
            if RECORD in one.user_attrs
        ]

    def take(self, *, vary: bool, core_only: bool = False) -> Turn | None:
        """Return the next recipe to try, if `vary` also a variation of one, or only one of the core; None when there
        is nothing new for now."""
        for _ in range(MAX_REPEATS):
            if not self._queue_next(vary and not self._barren, core_only):
                return None
            trial = self._study.ask()
            trial.set_user_attr(WORKER, self._worker)
            recipe = self._propose(trial)
            if recipe is not None and not self._taken(trial, recipe):
                return Turn(recipe=recipe, trial=trial, varied=recipe.id not in self._recipes)
            self._tell(trial)
        self._barren = True
        return None

    def _taken(self, trial: Trial, recipe: Recipe) -> bool:
        """Claim a recipe for a trial; return whether another one has it, or had it and knows its fate. Of two that were
        queued for one recipe the first has it, also before it has said so."""
        trial.set_user_attr(TRYING, recipe.id)
        states = self._optuna.trial.TrialState
        return any(
            other.user_attrs.get(TRYING, other.user_attrs.get(RECIPE)) == recipe.id
            and (RECORD in other.user_attrs or other.state in (states.RUNNING, states.WAITING))
            for other in self._study.get_trials(deepcopy=False)
            if other.number < trial.number
        )

    def _queue_next(self, vary: bool, core_only: bool) -> bool:
        """Make sure that a turn is queued: a lost one, a recipe as it is written, or a base to vary."""
        trials = self._study.get_trials(deepcopy=False)
        if not core_only and any(one.state == self._optuna.trial.TrialState.WAITING for one in trials):
            return True
        recipe = self._unwritten(trials, core_only)
        if recipe is not None:
            own = {_parameter(recipe, parameter): _spelled(parameter, parameter.own) for parameter in recipe.parameters}
            self._study.enqueue_trial(
                {BASE: recipe.id, **own} if recipe.parameters else {}, user_attrs={RECIPE: recipe.id}
            )
            return True
        tried = _tried(trials)
        base = next_base(self._bases, tried) if vary else None
        if base is not None:
            # The n-th variation of a base has the same draw in every search, however its trials took turns.
            seed = zlib.crc32(f"{base}:{sum(one.base == base for one in tried)}".encode())
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, multivariate=False)
            self._study.enqueue_trial({BASE: base})
        return base is not None

    def _unwritten(self, trials: list[FrozenTrial], core_only: bool) -> Recipe | None:
        """Return the first recipe that was never queued and that the one it comes after, if any, lets in."""
        queued = {one.user_attrs.get(RECIPE) for one in trials}
        within = {record.id for record in self.finished() if record.status == "pending"}
        for recipe in self._recipes.values():
            let_in = recipe.after is None or recipe.after in within or recipe.after not in self._recipes
            if recipe.id not in queued and let_in and (recipe.core or not core_only):
                return recipe
        return None

    def _propose(self, trial: Trial) -> Recipe | None:
        base = trial.user_attrs.get(RECIPE)
        if base not in self._recipes:
            base = None
        if base is None or self._recipes[base].parameters:
            base = trial.suggest_categorical(BASE, self._bases) if self._bases else None
        if base is None:
            return None
        recipe = self._recipes[base]
        try:
            return varied(
                recipe, {parameter.name: _suggest(trial, recipe, parameter) for parameter in recipe.parameters}
            )
        except ContractError:  # each value was checked alone; together a pass may refuse them
            return None

    def finish(self, turn: Turn, candidate: Candidate, limits: dict[str, float], values: list[float] | None) -> None:
        """Write down what came of a turn. `limits` are above 0 where not kept; without `values` there is nothing to
        compare. A turn that another search took for lost is that one's now: nothing is written."""
        with suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            for name, value in limits.items():
                turn.trial.set_constraint(name, value)
            turn.trial.set_user_attr(VALUES, values)
            turn.trial.set_user_attr(RECORD, encode(candidate.record()).decode())
        self._tell(turn.trial, values)

    def _tell(self, trial: Trial, values: list[float] | None = None) -> None:
        """End a trial, with its values or as one that failed; one that has ended stays as it is."""
        state = None if values is not None else self._optuna.trial.TrialState.FAIL
        self._study.tell(trial, values, state=state, skip_if_finished=True)

    def give_back(self, turn: Turn) -> None:
        """Put a turn back that was not played to the end: it is the next one's."""
        self._tell(turn.trial)
        self._again(turn.trial.params, dict(turn.trial.user_attrs))

    def _again(self, parameters: dict[str, Any], attributes: dict[str, Any]) -> None:
        kept = {name: value for name, value in attributes.items() if name in (RECIPE, LOST)}
        self._study.enqueue_trial(parameters, user_attrs=kept)

    def _give_up_lost(self) -> None:
        """Queue again what searches were trying when they died; end what they had written down."""
        states = self._optuna.trial.TrialState
        for one in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if _alive(one):
                continue
            values = one.user_attrs.get(VALUES) if RECORD in one.user_attrs else None
            self._study.tell(one.number, values, state=states.FAIL if values is None else None)
            if RECORD in one.user_attrs:
                continue
            lost = int(one.user_attrs.get(LOST, 0)) + 1
            if lost < MAX_LOST:
                self._again(one.params, {**one.user_attrs, LOST: lost})


def _open(url: str, name: str) -> optuna.Study:
    import optuna
    from optuna.storages import RDBStorage

    waits = {"connect_args": {"timeout": LOCK_WAIT_S}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for left in reversed(range(OPEN_TRIES)):
        try:
            storage = RDBStorage(url, engine_kwargs=waits)
            if storage.engine.dialect.name == "sqlite":
                _lock_before_reading(storage.engine)
            return optuna.create_study(
                study_name=name, storage=storage, directions=["minimize"] * 3, load_if_exists=True
            )
        except Exception as error:  # drivers raise anything: a missing module, a refused password
            if left == 0 or not isinstance(error, _passing()):
                what = f"cannot open the search database: {type(error).__name__}: {str(error)[:300]}"
                raise OperatorError(
                    what, subject="--storage", hint="give a URL such as sqlite:////path/study.db"
                ) from error
        time.sleep(OPEN_WAIT_S)
    raise AssertionError


def _lock_before_reading(engine: Engine) -> None:
    """Have every transaction take SQLite's write lock when it begins. Otherwise two searches read that a trial waits,
    and both take it: SQLite knows no `SELECT ... FOR UPDATE`, by which other databases keep the second one out."""
    from sqlalchemy import event

    def leave_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None  # Python's driver begins too late by itself

    event.listen(engine, "connect", leave_to_us)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # what was opened before the first listener was there


def _passing() -> tuple[type[Exception], ...]:
    """Return the errors of a database that may be gone at the next try."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import IntegrityError, OperationalError

    return IntegrityError, OperationalError, StorageInternalError


def _alive(trial: FrozenTrial) -> bool:
    """Return whether the search that runs a trial still runs, as far as can be known from here."""
    age = datetime.now() - (trial.datetime_start or datetime.min)  # noqa: DTZ005, DTZ901 - Optuna's are naive
    host, process, began = str(trial.user_attrs.get(WORKER, "::0")).rsplit(":", 2)
    if host != socket.gethostname():
        return age < (STALE if host else NAMELESS)
    try:
        return abs(psutil.Process(int(process)).create_time() - float(began)) < 2.0
    except psutil.NoSuchProcess:
        return False


def _tried(trials: list[FrozenTrial]) -> list[Tried]:
    """Return what is known of the trials of bases, of those that still run too, and of proposals made before: they
    count, so that a base whose values are all tried leaves the turn to others."""
    return [
        Tried(
            base=one.params[BASE],
            costs=None if one.values is None else tuple(one.values),
            within=one.values is not None and all(value <= 0.0 for value in one.constraints.values()),
        )
        for one in trials
        if BASE in one.params
    ]


def _parameter(recipe: Recipe, parameter: Parameter) -> str:
    return f"{recipe.id}/{parameter.name}"


def _spelled(parameter: Parameter, value: Value) -> Any:
    """Return a value as the study stores it: numbers of a range as they are, choices as text."""
    return value if isinstance(parameter.domain, ParameterRange) else text(value)


def _suggest(trial: Trial, recipe: Recipe, parameter: Parameter) -> Value:
    name = _parameter(recipe, parameter)
    if not isinstance(parameter.domain, ParameterRange):
        chosen: Value = json.loads(trial.suggest_categorical(name, [text(value) for value in parameter.domain]))
        return tuple(chosen) if isinstance(chosen, list) else chosen
    low, high, step = parameter.domain.low, parameter.domain.high, parameter.domain.step
    if parameter.domain.whole:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=parameter.domain.log)
    value = trial.suggest_float(name, low, high, step=step, log=parameter.domain.log)
    return float(f"{value:.6g}")
