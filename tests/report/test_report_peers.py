"""Students that taught one another: the page shows the accuracies of all, and nothing where there is one."""

from dataclasses import replace

from support.fake_report import make_run

from raykd.report.page.peers import peer_table


def test_the_accuracies_of_all_students_stand_in_one_table() -> None:
    run = make_run(6)
    best = run.complete_trials()[0].number
    last = run.epochs_by_trial()[best][-1]
    epochs = [replace(row, peer_accuracies=(61.0, 62.5)) if row is last else row for row in run.epochs]
    confirmation = replace(run.confirmations[0], peer_accuracies=(70.25,))
    table = peer_table(replace(run, epochs=epochs, confirmations=[confirmation, *run.confirmations[1:]]))
    assert [head.name for head in table.heads[2:]] == ["deployed (%)", "student 2 (%)", "student 3 (%)"]
    assert list(table.rows) == [
        [f"trial {best}", "held out", last.accuracy, 61.0, 62.5],
        [f"{confirmation.role}, seed {confirmation.seed}", "test", confirmation.accuracy, 70.25, None],
    ]
    assert not peer_table(run).rows
