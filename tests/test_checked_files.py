"""Files with checksums: every change of what was written is found, and what a crash leaves behind it is not read."""

import json
import os
import random
import shutil

import pytest
import xxhash

from lilo_jax.errors import RunError
from lilo_jax.storage.checked_files import CHECKSUMS, CheckedFiles
from lilo_jax.storage.files import TEMPORARY, remove_unfinished, whole_file, write_whole


@pytest.fixture
def files(tmp_path):
    files = CheckedFiles(tmp_path)
    for line in (b"one\n", b"two\n", b"three\n"):
        files.append("lines.jsonl", line)
    files.write("folder/whole.json", b'{"a": 1}')
    return files


def test_what_was_written_is_read(files, tmp_path):
    for reader in (files, CheckedFiles(tmp_path)):
        assert reader.read("lines.jsonl") == b"one\ntwo\nthree\n"
        assert reader.read("folder/whole.json") == b'{"a": 1}'
        assert reader.read("absent") is None
        assert reader.names("folder") == ["folder/whole.json"]
        assert reader.check_folder("folder")
        assert not reader.check_folder("elsewhere")
    stored = json.loads((tmp_path / CHECKSUMS).read_text())
    assert stored["files"]["lines.jsonl"] == [14, xxhash.xxh3_128_hexdigest(b"one\ntwo\nthree\n")]


def test_another_writer_goes_on_behind_the_last_line(files, tmp_path):
    with open(tmp_path / "lines.jsonl", "ab") as file:
        file.write(b"cut sho")
    assert files.read("lines.jsonl") == b"one\ntwo\nthree\n"
    CheckedFiles(tmp_path).append("lines.jsonl", b"four\n")
    assert (tmp_path / "lines.jsonl").read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert CheckedFiles(tmp_path).read("lines.jsonl") == b"one\ntwo\nthree\nfour\n"


def test_every_flipped_bit_cut_and_deletion_is_found(files, tmp_path):
    """All bits of all three files, the checksums' own included: refused by name, or read as it was."""
    whole = {name: (tmp_path / name).read_bytes() for name in ("lines.jsonl", "folder/whole.json", CHECKSUMS)}
    expected = {name: files.read(name) for name in ("lines.jsonl", "folder/whole.json")}

    def outcome():
        try:
            assert {name: CheckedFiles(tmp_path).read(name) for name in expected} == expected
        except RunError as error:
            return str(error)
        return ""

    for name, content in whole.items():
        path = tmp_path / name
        for bit in range(8 * len(content)):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert name in outcome()
        for size in range(len(content) - (name == CHECKSUMS)):  # its last byte is a line break
            path.write_bytes(content[:size])
            assert name in outcome()
        path.unlink()
        assert name in outcome()
        path.write_bytes(content)
        assert outcome() == ""


def test_rewinding_cuts_and_deletes_what_came_later(files, tmp_path):
    state = json.loads(json.dumps(files.state()))
    files.append("lines.jsonl", b"four\n")
    files.append("new.jsonl", b"x\n")
    files.write("folder/new.json", b"{}")
    CheckedFiles(tmp_path).rewind(state)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [CHECKSUMS, "lines.jsonl", "whole.json"]
    assert (tmp_path / "lines.jsonl").read_bytes() == b"one\ntwo\nthree\n"
    assert CheckedFiles(tmp_path).state() == {name: tuple(entry) for name, entry in state.items()}


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_rewinding_to_what_is_not_there_changes_nothing(files, tmp_path, damage):
    state, path = files.state(), tmp_path / "lines.jsonl"
    files.append("lines.jsonl", b"four\n")
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(b"O" + content[1:] if damage == "flip" else content[:5])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match=r"lines\.jsonl is"):
        CheckedFiles(tmp_path).rewind(state)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_lost_checksums_are_made_good_by_a_checkpoints(files, tmp_path):
    state = files.state()
    (tmp_path / CHECKSUMS).unlink()
    with pytest.raises(RunError, match=f"no {CHECKSUMS}"):
        CheckedFiles(tmp_path).read("lines.jsonl")
    CheckedFiles(tmp_path).rewind(state)
    assert CheckedFiles(tmp_path).read("lines.jsonl") == b"one\ntwo\nthree\n"


def test_a_person_may_accept_a_file_as_it_is(files, tmp_path):
    state, path = files.state(), tmp_path / "lines.jsonl"
    path.write_bytes(b"ONE\ntwo\nthree\n")
    stored = json.loads((tmp_path / CHECKSUMS).read_text())
    stored["files"]["lines.jsonl"] = stored["checksum"] = None
    (tmp_path / CHECKSUMS).write_text(json.dumps(stored))
    accepted = CheckedFiles(tmp_path)
    assert accepted.read("lines.jsonl") == b"ONE\ntwo\nthree\n"
    accepted.append("lines.jsonl", b"four\n")
    assert CheckedFiles(tmp_path).read("lines.jsonl") == b"ONE\ntwo\nthree\nfour\n"
    shutil.copy(tmp_path / CHECKSUMS, tmp_path / "copy")
    path.write_bytes(b"ONE\ntwo\nthree\n")
    (tmp_path / CHECKSUMS).write_text(json.dumps(stored))
    CheckedFiles(tmp_path).rewind(state)
    assert CheckedFiles(tmp_path).read("lines.jsonl") == b"ONE\ntwo\nthree\n"


def test_another_format_is_refused(files, tmp_path):
    stored = json.loads((tmp_path / CHECKSUMS).read_text()) | {"format": 9, "checksum": None}
    (tmp_path / CHECKSUMS).write_text(json.dumps(stored))
    with pytest.raises(RunError, match="is of format 9, and this version of lilo_jax reads format"):
        files.read("lines.jsonl")


def test_a_crash_between_any_two_writes_loses_nothing(tmp_path, monkeypatch):
    """Killed before every single system call that changes the directory: what was appended before is read, in order."""
    for crash in range(60):
        root = tmp_path / str(crash)
        root.mkdir()
        left = [crash]

        def dying(function, left=left):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return function(*args, **kwargs)

            return call

        finished = 0
        with monkeypatch.context() as patch:
            for name in ("replace", "open", "unlink", "truncate"):
                patch.setattr(os, name, dying(getattr(os, name)))
            files = CheckedFiles(root)
            try:
                for i in range(6):
                    files.append("lines", b"%d\n" % i)
                    files.write(f"step_{i}", b"%d" % i)
                    if i == 3:
                        files.remove(["step_1"])
                    finished = i + 1
            except KeyboardInterrupt:
                pass
        found = CheckedFiles(root)
        if found.known:
            lines = (found.read("lines") or b"").split()
            assert lines == [b"%d" % i for i in range(len(lines))]
            assert len(lines) >= finished
            assert all(found.read(f"step_{i}") in (b"%d" % i, None) for i in range(6))
            found.append("lines", b"after\n")
            assert found.read("lines").split() == [*lines, b"after"]


# ------------------------------------------------------------------------------------------------------ whole files
def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail():
        with whole_file(path) as file:
            file.write(b"half of the n")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_links_are_replaced_and_never_followed(tmp_path, monkeypatch):
    """Neither the file nor the temporary one may lead outside of the directory."""
    outside, inside = tmp_path / "outside", tmp_path / "run"
    inside.mkdir()
    outside.write_text("precious")
    (inside / "whole").symlink_to(outside)
    write_whole(inside / "whole", "new")
    assert (outside.read_text(), (inside / "whole").read_text()) == ("precious", "new")
    monkeypatch.setattr("secrets.token_hex", lambda n: "known")
    (inside / f"{TEMPORARY}known").symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_whole(inside / "whole", "newer")
    (inside / "lines").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        CheckedFiles(inside).append("lines", b"x")
    assert outside.read_text() == "precious"


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / f"{TEMPORARY}{random.randrange(10)}").write_text("half")
    (tmp_path / "kept").write_text("whole")
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
