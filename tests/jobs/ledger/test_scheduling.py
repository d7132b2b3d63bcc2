"""In which order jobs are claimed, and by whom; on SQLite and on PostgreSQL."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from jobs.devices import DeviceClass, class_of, served_by
from jobs.ledger import scheduling
from jobs.models import SPEC_VERSION, JobSpec, JobState
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import submit, submit_for
from tests.jobs.clockwork import age_spec
from tests.jobs.ledger.test_concurrency import together
from tests.servers import Postgres

CPU, GPU = DeviceClass.CPU, DeviceClass.GPU


def next_id(store: Store, device_class: DeviceClass = CPU) -> str | None:
    claim = store.claim("me", 60, 1, device_class)
    return claim and claim.job.id


def finish(store: Store, job_id: str) -> None:
    assert store.succeed(job_id, store.get(job_id).fence, artifacts=[])


def test_a_higher_priority_goes_first_whoever_waits(store: Store) -> None:
    old, urgent, late = (submit_for(store, priority=priority) for priority in (0, 5, 5))
    negative = submit_for(store, priority=-1)
    assert [next_id(store) for _ in range(4)] == [urgent.id, late.id, old.id, negative.id]


def test_tenants_with_fewer_running_jobs_go_first_then_age(store: Store) -> None:
    of_a = [submit_for(store, tenant="a").id for _ in range(4)]
    of_b = [submit_for(store, tenant="b").id for _ in range(2)]
    assert [next_id(store) for _ in range(6)] == [of_a[0], of_b[0], of_a[1], of_b[1], of_a[2], of_a[3]]


def test_a_hundred_jobs_of_one_tenant_hold_up_nobody_for_more_than_two_slots(store: Store) -> None:
    for _ in range(100):
        submit_for(store, tenant="a")
    for number in range(20):
        first = submit_for(store, tenant=f"b{number}").id
        assert first in {next_id(store), next_id(store)}


def test_with_a_single_slot_tenants_take_turns(store: Store) -> None:
    of_a = [submit_for(store, tenant="a").id for _ in range(10)]
    of_b = [submit_for(store, tenant="b").id for _ in range(3)]
    order = []
    for _ in range(6):
        claimed = next_id(store)
        assert claimed is not None
        finish(store, claimed)
        order.append(claimed)
    assert order == [of_a[0], of_b[0], of_a[1], of_b[1], of_a[2], of_b[2]]


def test_many_workers_at_once_share_alike(store: Store) -> None:
    for tenant in ("a", "b"):
        for _ in range(12):
            submit_for(store, tenant=tenant)
    claimed: list[str] = []

    def work() -> None:
        claimed.extend(filter(None, [next_id(store)]))

    together(*[work] * 8)
    numbers = {job.id: number for number, job in enumerate(reversed(store.list(100).jobs))}
    assert Counter("a" if numbers[job_id] < 12 else "b" for job_id in claimed) == {"a": 4, "b": 4}


def test_what_another_holds_is_passed_over(postgres_url: str) -> None:
    store = open_store(Settings(database_url=postgres_url))
    first, second = submit(store), submit(store)
    with store._database.connected(writes=True) as held:
        assert held.execute(scheduling.next_job("postgresql", CPU)).one().id == first.id
        assert next_id(store) == second.id
        assert next_id(store) is None
    assert next_id(store) == first.id
    store.close()


def test_a_worker_takes_what_its_device_serves(store: Store) -> None:
    for_gpu, for_any, for_cpu = (submit_for(store, device).id for device in ("gpu", None, "cpu"))
    assert [next_id(store, CPU) for _ in range(3)] == [for_any, for_cpu, None]
    assert [next_id(store, GPU) for _ in range(2)] == [for_gpu, None]


@pytest.mark.parametrize(("device", "expected"), [("cpu", CPU), ("cuda", GPU), ("cuda:3", GPU)])
def test_a_device_has_a_class(device: str, expected: DeviceClass) -> None:
    assert class_of(device) is expected
    assert set(served_by(expected)) == {DeviceClass.ANY, expected}


def test_what_asks_for_a_device_is_left_to_versions_that_know_how(store: Store) -> None:
    any_job, gpu_job = submit_for(store), submit_for(store, "gpu")
    with store._database.connected(writes=False) as connection:
        rows = connection.exec_driver_sql("SELECT spec_version, device_class, spec FROM jobs ORDER BY number").all()
    assert [tuple(row)[:2] for row in rows] == [(1, "any"), (2, "gpu")]
    assert '"device"' not in rows[0].spec
    assert '"device":"gpu"' in rows[1].spec
    assert [store.get(job.id).spec for job in (any_job, gpu_job)] == [any_job.spec, gpu_job.spec]
    assert isinstance(gpu_job.spec, JobSpec)
    assert gpu_job.spec.device == "gpu"


def test_what_compares_blocks_is_left_to_versions_that_know_how() -> None:
    plain, comparing = (
        JobSpec.model_validate(
            {"student": {"architecture": "teacher"}, "distillation": {"training": {"block_weight": weight}}}
        )
        for weight in (0.0, 2.0)
    )
    assert (plain.version, comparing.version) == (1, 3)
    assert "block_weight" not in plain.text()
    assert [JobSpec.model_validate_json(spec.text()) for spec in (plain, comparing)] == [plain, comparing]


@pytest.mark.parametrize(
    "unknown",
    [
        {"procedural": {"kinds": ["shapes", "marks"]}},
        {"method_options": {"start": "scenes"}},
        {"method_options": {"figure_share": 0.5}},
        {"method_options": {"figure_candidates": 7}},
        {"method_options": {"pseudo_statistics": ["shapes"]}},
        {"method": "zskd"},
        {"fallback": "zskd"},
    ],
)
def test_what_earlier_versions_do_not_know_is_left_to_those_that_do(unknown: dict[str, Any]) -> None:
    plain, other = (
        JobSpec.model_validate(
            {"student": {"architecture": "teacher"}, "distillation": {"method": "deepinversion", **changes}}
        )
        for changes in ({"procedural": {"kinds": ["shapes"]}}, unknown)
    )
    assert (plain.version, other.version) == (1, 3)
    assert not any(newer in plain.text() for newer in ("kinds", "figure_", "pseudo_statistics"))
    assert [JobSpec.model_validate_json(spec.text()) for spec in (plain, other)] == [plain, other]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_is_left_open_is_not_stored_for_older_versions(precision: str) -> None:
    """To them a spec without it means fp32, which is a choice that any worker may make."""
    plain, asked = (
        JobSpec.model_validate(
            {"student": {"architecture": "teacher"}, "distillation": {"compute": {"precision": value}}}
        )
        for value in ("auto", precision)
    )
    assert (plain.version, asked.version) == (1, 1)
    assert "precision" not in plain.text()
    assert f'"precision":"{precision}"' in asked.text()
    assert [JobSpec.model_validate_json(spec.text()) for spec in (plain, asked)] == [plain, asked]


def test_a_newer_spec_holds_up_nobody_whatever_its_priority(store: Store) -> None:
    newer, older = submit_for(store, priority=9), submit_for(store)
    age_spec(store, newer.id, "{}", version=SPEC_VERSION + 1)
    assert [next_id(store), next_id(store)] == [older.id, None]


def test_bells_of_each_class_ring_in_the_order_of_claims(store: Store) -> None:
    plain = submit_for(store)
    urgent = submit_for(store, priority=1)
    for _ in range(25):
        submit_for(store, "gpu")
    notify = store.sweep().notify
    assert [job_id for job_id in notify if notify[job_id] is DeviceClass.ANY] == [urgent.id, plain.id]
    assert list(notify.values()).count(GPU) == 20
    assert len(store.sweep().notify) == 5


def test_a_place_in_the_line_is_that_of_the_next_claims(store: Store) -> None:
    told = (("a", 0), ("a", 0), ("b", 0), ("a", 1))
    jobs = [submit_for(store, tenant=tenant, priority=priority).id for tenant, priority in told]
    for_gpu = submit_for(store, "gpu", tenant="c").id
    places = [store.get_with_position(job_id).queue_position for job_id in jobs]
    assert places == [4, 5, 2, 1]  # of what runs anywhere, all is counted
    assert store.get_with_position(for_gpu).queue_position == 3
    assert [next_id(store, GPU) for _ in range(5)] == [jobs[3], jobs[2], for_gpu, jobs[0], jobs[1]]


def test_a_place_counts_only_what_competes_for_the_same_workers(store: Store) -> None:
    for_gpu, for_cpu = submit_for(store, "gpu").id, submit_for(store, "cpu").id
    assert [store.get_with_position(job_id).queue_position for job_id in (for_gpu, for_cpu)] == [1, 1]


def test_classes_that_no_live_worker_serves_are_named(store: Store) -> None:
    assert store.unserved(60) == []
    submit_for(store, "gpu")
    submit_for(store)
    assert store.unserved(60) == [DeviceClass.ANY, GPU]
    store.worker_seen("w", host="here", slots=1, device="cpu")
    assert store.unserved(60) == [GPU]
    store.worker_seen("g", host="here", slots=1, device="cuda:0")
    assert store.unserved(60) == []


def test_jobs_that_know_no_tenant_are_the_one_tenants_and_run_anywhere(store: Store) -> None:
    """As an older service puts them in: without the columns that it does not know."""
    submit_for(store, "gpu", tenant="a", priority=3)
    new = ("tenant", "priority", "device_class")
    with store._database.connected(writes=True) as connection:
        names = [column.name for column in scheduling._jobs.c if column.name not in (*new, "number", "id")]
        told = ", ".join(names)
        connection.exec_driver_sql(f"INSERT INTO jobs (id, {told}) SELECT 'old', {told} FROM jobs")
        connection.commit()
        row = connection.exec_driver_sql("SELECT tenant, priority, device_class FROM jobs WHERE id = 'old'").one()
    assert tuple(row) == ("default", 0, "any")
    assert next_id(store) == "old"


def test_neither_finished_jobs_nor_the_depth_of_the_queue_are_read(store: Store) -> None:
    """The plan goes by the index, group by group: nowhere is a whole table or a whole state read."""
    dialect = store._database.dialect
    with store._database.connected(writes=False) as connection:
        statement = scheduling.next_job(dialect, CPU).compile(
            store._database._engine, compile_kwargs={"literal_binds": True}
        )
        if dialect == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")  # the tables are empty
        explain = "EXPLAIN QUERY PLAN " if dialect == "sqlite" else "EXPLAIN "
        plan = [str(row) for row in connection.exec_driver_sql((explain + str(statement)).replace("%", "%%"))]
    told = "\n".join(plan)
    assert "SCAN jobs" not in told
    assert "Seq Scan" not in told.replace("Seq Scan on workers", "")  # of a policy: run only where no tenant is named
    assert "jobs_in_line" in told
    steps = "(device_class,spec_version,priority,tenant)>" if dialect == "sqlite" else "ROW(device_class, spec_version"
    assert steps in told
    assert "jobs_by_tenant" in told


def pages_read(store: Store) -> int:
    """Pages that PostgreSQL looks at for the next claim."""
    with store._database.connected(writes=False) as connection:
        statement = scheduling.next_job("postgresql", CPU).compile(
            store._database._engine, compile_kwargs={"literal_binds": True}
        )
        told = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + str(statement)
        plan = connection.exec_driver_sql(told.replace("%", "%%")).scalar_one()[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_claim_reads_as_much_of_a_long_queue_as_of_a_short_one(
    postgres_server: Postgres, postgres_url: str, analyzed: bool
) -> None:
    store = open_store(Settings(database_url=postgres_url))
    for number in range(120):
        submit_for(store, tenant=f"t{number % 4}", priority=number % 2)
    with postgres_server.connect() as connection:
        connection.execute("ANALYZE")
        short = pages_read(store)
        columns = ", ".join(column.name for column in scheduling._jobs.c if column.name not in ("number", "id"))
        copies = f"SELECT gen_random_uuid(), {columns} FROM jobs, generate_series(1, 100)"
        connection.execute(f"INSERT INTO jobs (id, {columns}) {copies}")
        connection.execute("UPDATE jobs SET state = 'succeeded', finished_at = now() WHERE number > 120")
        connection.execute(f"INSERT INTO jobs (id, {columns}) {copies} WHERE state = 'queued'")
        if analyzed:
            connection.execute("ANALYZE")
    assert store.statistics(worker_seconds=60.0).jobs[JobState.QUEUED] == 120 + 12000
    assert pages_read(store) < 2 * short
    store.close()


@dataclass
class Waiting:
    id: str
    number: int
    tenant: str
    priority: int
    wanted: str


@dataclass
class Model:
    """The order of claims in so many words."""

    waiting: list[Waiting] = field(default_factory=list)
    running: list[Waiting] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)
    claims: int = 0

    def next(self, device_class: DeviceClass) -> str | None:
        mine = [job for job in self.waiting if job.wanted in served_by(device_class)]
        if not mine:
            return None
        busy = Counter(job.tenant for job in self.running)
        first = min(mine, key=lambda job: (-job.priority, busy[job.tenant], self.served.get(job.tenant, 0), job.number))
        self.claims += 1
        self.served[first.tenant] = self.claims
        self.waiting.remove(first)
        self.running.append(first)
        return first.id


ACTS = st.one_of(
    st.tuples(
        st.just("submit"), st.sampled_from("abc"), st.sampled_from([0, 0, 1]), st.sampled_from([None, "cpu", "gpu"])
    ),
    st.tuples(st.just("claim"), st.sampled_from([CPU, GPU])),
    st.tuples(st.just("finish"), st.integers(0, 5)),
)


@settings(max_examples=25, deadline=None, database=None)
@given(acts=st.lists(ACTS, min_size=10, max_size=40))
def test_whatever_happens_the_order_is_the_one_that_is_promised(acts: Sequence[tuple]) -> None:
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        store, model = open_store(Settings(data_dir=Path(directory))), Model()
        try:
            for number, (verb, *told) in enumerate(acts):
                if verb == "submit":
                    tenant, priority, device = told
                    job = submit_for(store, device, tenant=tenant, priority=priority)
                    model.waiting.append(Waiting(job.id, number, tenant, priority, device or "any"))
                elif verb == "claim":
                    assert next_id(store, told[0]) == model.next(told[0])
                elif model.running:
                    finish(store, model.running.pop(told[0] % len(model.running)).id)
            while model.waiting:  # nobody is left behind
                device_class = GPU if model.waiting[0].wanted == "gpu" else CPU
                assert next_id(store, device_class) == model.next(device_class)
                finish(store, model.running.pop().id)
            assert next_id(store, CPU) is next_id(store, GPU) is None
        finally:
            store.close()
