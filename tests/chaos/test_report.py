"""The page: well-formed, self-contained, and it shows what happened – and the command that writes it again."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from chaos.cli import FAILED_STATUS, UNUSABLE_STATUS, app
from chaos.expectation import Expect
from chaos.history import GapAnnounced, write
from chaos.judgement import judge
from chaos.keeping import HISTORY_SUFFIX, REPORT_FILE, Kept, read_back
from chaos.picture import Picture, Window, gap_bars
from chaos.report import page
from chaos.target import DrillError
from tests.chaos.histories import began, failover, seen

VOID = {"meta", "br", "hr", "img", "link"}


class Nesting(HTMLParser):
    """Fails on a tag that is closed in the wrong place."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outcome(history):
    return "kill-conductor", history, judge(history)


def test_the_page_is_well_formed_and_needs_nothing_else():
    text = page([outcome(failover())])
    nesting = Nesting()
    nesting.feed(text)
    assert nesting.open == []
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "url(" not in text and "@import" not in text and "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_says_what_was_broken():
    good, bad = failover(), [*failover(), seen(109.0, 2, 1, "proxy-0 text", 0)]
    assert "all promises kept" in page([outcome(good)])
    text = page([outcome(good), outcome(bad)])
    assert "1 of 2 failed" in text
    assert "duplicate: proxy-0 text saw 2/1 twice" in text
    assert "✗ 5" in text


def test_the_picture_shows_leaders_faults_subscribers_and_holes():
    history = [*failover(silence_s=0.6), GapAnnounced(104.0, "proxy-0 text", 2, 3, 4)]
    picture = Picture(history)
    root = ElementTree.fromstring(picture.overview())
    texts = [element.text for element in root.iter() if element.text]
    for wanted in ("sequencer-0", "sequencer-1", "proxy-0 frames", "proxy-0 text", "transactions"):
        assert wanted in texts
    titles = [element.text for element in root.iter("title")]
    assert "sequencer-0 leads, epoch 1" in titles
    assert "sequencer-1 leads, epoch 2" in titles
    assert any(title.startswith("kill sequencer-0/conductor, ") for title in titles)
    assert any(title.startswith("no flashblock for 7") for title in titles)
    assert "gap announced: 2/3–4" in titles
    assert "not connected" in titles
    assert ElementTree.fromstring(picture.close_up(judge(history).runs[0])) is not None


def test_a_moment_outside_the_window_stays_at_its_edge():
    window = Window(10.0, 20.0)
    assert window.x(0.0) == window.x(10.0) < window.x(15.0) < window.x(20.0) == window.x(99.0)


def test_bars_over_the_bound_are_marked():
    runs = judge(failover()).runs
    assert 'class="bar over"' in gap_bars(runs, (100.0, 200.0))
    assert 'class="bar over"' not in gap_bars(runs, (300.0, 800.0))
    assert gap_bars([], None) == ""


@pytest.mark.parametrize("silence_s", [0.35, 3.0])
def test_a_kept_history_is_judged_again_and_the_page_written(tmp_path, capsys, silence_s):
    header = began(drill="kill-follower-group", expect=Expect.UNNOTICED)
    history = failover(header, silence_s)
    Kept(tmp_path / "kept").keep("kill-follower-group", history, judge(history))
    status = app(["report", str(tmp_path / "kept"), "--json"])
    (printed,) = json.loads(capsys.readouterr().out)
    assert status == (0 if silence_s < 1 else FAILED_STATUS)
    assert (printed["drill"], printed["verdict"]) == ("kill-follower-group", "fail" if status else "pass")
    assert "kill-follower-group" in (tmp_path / "kept" / REPORT_FILE).read_text()


def test_one_history_file_is_enough(tmp_path, capsys):
    write(tmp_path / "mine.jsonl", failover())
    assert app(["report", str(tmp_path / "mine.jsonl"), "--output", str(tmp_path / "page.html")]) == 0
    assert "kill-conductor  pass" in capsys.readouterr().out
    assert (tmp_path / "page.html").exists()


def test_what_cannot_be_read_is_said(tmp_path, capsys):
    assert app(["report", str(tmp_path)]) == UNUSABLE_STATUS
    assert "no history" in capsys.readouterr().err
    (tmp_path / f"x{HISTORY_SUFFIX}").write_text('{"type":"nonsense"}\n')
    with pytest.raises(DrillError, match="nonsense"):
        read_back(tmp_path)


def test_logs_are_kept_beside_the_history(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "conductor-0.jsonl").write_text("{}\n")
    kept = Kept(tmp_path / "kept")
    kept.keep("x", failover(), judge(failover()))
    assert (kept.keep_logs(tmp_path / "logs") / "conductor-0.jsonl").read_text() == "{}\n"
    assert kept.keep_logs(tmp_path / "gone") is None
