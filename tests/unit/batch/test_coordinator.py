"""The coordinator: who gets which task, and what becomes of failures and deaths."""

from __future__ import annotations

import pytest
from animatediff_v2v.batch.coordinator import MOST_DEATHS, MOST_FAILURES, Coordinator, Task

PARTS = [Task("a#1", "m"), Task("a#2", "m"), Task("a", "m", ("a#1", "a#2")), Task("b", "m")]


def worked(coordinator, *workers):
    for worker in workers:
        coordinator.join(worker)
    return coordinator


def taken(coordinator, worker, **options):
    task = coordinator.take(worker, 0.0, **options)
    return task and task.name


def test_tasks_come_in_order_and_a_join_comes_after_its_parts_at_once():
    run = worked(Coordinator(PARTS), "w")
    order = []
    while (name := taken(run, "w")) is not None:
        order.append(name)
        assert run.finish("w", name, 1.0)
    assert order == ["a#1", "a#2", "a", "b"]
    assert run.is_finished


def test_a_worker_prefers_the_networks_that_it_has_and_copies_come_last():
    tasks = [Task("copy"), Task("a", "one"), Task("b", "two"), Task("c", "one")]
    run = worked(Coordinator(tasks), "w")
    order = [taken(run, "w", models=models) for models in ("two", "two", "", "one")]
    assert order == ["b", "a", "c", "copy"]


def test_what_is_done_is_not_handed_out_and_frees_what_needs_it():
    run = worked(Coordinator(PARTS, done=["a#1", "a#2", "b"]), "w")
    assert taken(run, "w") == "a"
    assert taken(run, "w") is None


def test_a_failure_is_tried_on_another_worker_and_put_aside_after_three():
    run = worked(Coordinator(PARTS), "w", "v")
    assert taken(run, "w") == "a#1"
    assert run.fail("w", "a#1") == [("a#1", "again")]
    assert taken(run, "w") == "a#2"  # "a#1" is for the other one
    assert taken(run, "v") == "a#1"
    assert run.fail("v", "a#1") == [("a#1", "again")]
    assert taken(run, "v") == "b"  # both have tried it; the rest goes first
    assert taken(run, "v") == "a#1"
    assert MOST_FAILURES == 3
    assert run.fail("v", "a#1") == [("a#1", "put aside"), ("a", "put aside")]
    assert run.finish("w", "a#2", 1.0) and run.finish("v", "b", 1.0)
    assert run.is_finished


def test_the_only_worker_tries_again_itself():
    run = worked(Coordinator([Task("a")]), "w")
    for _ in range(MOST_FAILURES):
        assert taken(run, "w") == "a"
        last = run.fail("w", "a")
    assert last == [("a", "put aside")]
    assert run.is_finished


def test_a_death_gives_the_tasks_to_others_and_blames_the_one_that_ran():
    run = worked(Coordinator([Task("a"), Task("b")]), "w", "v")
    assert [taken(run, "w"), taken(run, "w")] == ["a", "b"]
    for number in range(MOST_DEATHS):
        worker = f"w{number}" if number else "w"
        if number:
            run.join(worker)
            assert {taken(run, worker), taken(run, worker)} == {"a", "b"}
        last = dict(run.lose(worker, running="a"))
        assert last["b"] == "again"
    assert last["a"] == "put aside"
    assert taken(run, "v") == "b"


def test_an_idle_worker_repeats_what_takes_too_long_and_the_first_result_counts():
    run = worked(Coordinator([Task(each) for each in "abc"]), "w", "v")
    run.take("v", 0.0)  # a, which never ends
    for now in (10.0, 20.0):
        name = run.take("w", now - 10.0).name
        assert run.finish("w", name, now)
    assert run.take("w", 15.0, repeats=True) is None
    assert run.take("w", 20.0) is None
    assert run.take("w", 20.0, repeats=True).name == "a"
    assert run.finish("w", "a", 30.0)
    assert not run.finish("v", "a", 31.0)
    assert run.is_finished


@pytest.mark.parametrize("end", ["fail", "lose"])
def test_a_repeated_task_that_ends_badly_stays_with_the_other_worker(end):
    run = worked(Coordinator([Task("a"), Task("b")]), "w", "v")
    assert run.take("v", 0.0).name == "a"
    assert run.take("w", 0.0).name == "b"
    assert run.finish("w", "b", 1.0)
    assert run.take("w", 5.0, repeats=True).name == "a"
    getattr(run, end)(*(("w", "a") if end == "fail" else ("w",)))
    run.join("u")
    assert run.take("u", 5.0) is None
    assert run.finish("v", "a", 6.0)
