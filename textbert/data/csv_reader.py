"""Delimited text, compressed or not, to rows of fields: strict, with line numbers, and in bounded memory."""

import csv
import io
import re
from dataclasses import dataclass, replace
from itertools import islice

from textbert.data.compression import OPEN_FUNCTIONS, normalize_encoding, open_text, split_extension
from textbert.data.quoting import Column, Profile, Tally, may_hold_rows
from textbert.utils.files import check_encoding

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

SAMPLE = 2**18  # characters that show how a file is written


csv.field_size_limit(2**31 - 1)  # of a text; 131,072 otherwise


@dataclass(frozen=True)
class Dialect:
    """How a file of delimited text is written."""

    separator: str
    encoding: str = "utf-8"
    quoted: bool = True  # a field may stand in quotation marks
    spaced: bool = False  # a blank may stand before such a mark
    escaped: bool = False  # a mark inside such a field has a backslash before it and is not doubled
    skip: int = 0  # lines before the first row, such as sep=;

    def describe(self, kind):
        """Return what is unusual about it in a file of a `kind`, ".csv" or ".tsv"; "" if nothing is."""
        usual = "\t" if kind == ".tsv" else ","
        found = [f"columns that stand apart by {DELIMITERS.get(self.separator, repr(self.separator))}"]
        found = found if self.separator != usual else []
        found += ["a line sep= at its start"] if self.skip else []
        found += ["texts in quotation marks"] if self.quoted and kind == ".tsv" and self.separator == "\t" else []
        found += ["blanks before quotation marks"] if self.spaced else []
        found += ["quotation marks escaped by backslashes"] if self.escaped else []
        return " and ".join(found)

    def options(self):
        """Return it as arguments of csv.reader."""
        quoting = {"quoting": csv.QUOTE_MINIMAL} if self.quoted else {"quoting": csv.QUOTE_NONE}
        return {"delimiter": self.separator, "strict": True, "skipinitialspace": self.spaced, **quoting}


def _double_marks(match):
    """Return backslashes before a quotation mark, and the mark, in the usual way of writing."""
    slashes = len(match[1])
    return "\\" * (slashes // 2) + ('""' if slashes % 2 else '"')


class _Lines:
    """The lines of a file on their way to csv.reader: what it does not tell is noted here."""

    def __init__(self, form, tally=None):
        self.file, self.form, self.tally = None, form, tally or Tally()
        self.parts = []  # lines of the row that is being read
        self.backslash = self.mark = False  # a mark after a backslash; one where a field that csv.reader keeps begins

    def __iter__(self):
        form = self.form
        separator = re.escape(form.separator)
        begins = re.compile(f'(?:^|{separator}) +"(?!")' if form.quoted else f'(?:^|{separator})"')
        mixed = re.compile(f'(?<![\\\\{separator}])""(?![{separator}\r\n]|$)|(?<=[^{separator}])"""')
        for number, line in enumerate(self.file):
            line = line if number else line.removeprefix("\ufeff")
            if number < form.skip:
                continue
            if '"' in line:
                self.backslash = self.backslash or '\\"' in line
                self.mark = self.mark or bool(begins.search(line))
                if form.escaped:
                    if mixed.search(line):
                        raise ValueError("quotes are escaped in two ways")
                    line = re.sub(r'(\\+)"', _double_marks, line)
            self.parts.append(line)
            yield line


def _explain_width(path, line, row, width, form):
    name = DELIMITERS.get(form.separator, repr(form.separator))
    message = f"{path}: the row in line {line} has {len(row)} columns, but the first has {width}"
    if len(row) < width:
        message += f" (is it cut short, or is a text of the row before it torn by a line break, in line {line - 1}?"
        raise ValueError(message + (" Such a text stands in double quotes)" if form.quoted else ")"))
    raise ValueError(message + (f" (a text with {name} stands in double quotes)" if form.quoted else ""))


def _explain_mark(path, form, begin, noticed):
    """Raise the ValueError for a row from line `begin` to `noticed` in which a quotation mark is left open."""
    opened, inside = begin, False
    with open_text(path, form.encoding) as file:
        for number, line in enumerate(islice(file, begin - 1, noticed), start=begin):
            for match in re.finditer(r'"', line):
                before = line[: match.start()].rstrip(" ") if form.spaced else line[: match.start()]
                if not inside and (before in ("", "\ufeff") or before.endswith(form.separator)):
                    opened, inside = number, True
                elif inside:
                    inside = line[match.end() : match.end() + 1] not in (form.separator, "\r", "\n", "")
    where = "never closed" if noticed is None else f"closed in line {noticed} where no separator follows"
    raise ValueError(
        f"{path}, line {opened}: a quotation mark opens a text and is {where}: double each mark inside a text and put "
        "the whole text in double quotes"
    ) from None


def _read_records(path, form, lines):
    """Yield (line, row) for each row of a file, while `lines.parts` holds the text of that row."""
    with open_text(path, form.encoding) as file:
        lines.file, tally = file, lines.tally
        tally.skip = form.skip
        reader = csv.reader(lines, **form.options())
        begin, blank, end, before = form.skip + 1, 0, "", ""
        try:
            for row in reader:
                line, begin, parts = begin, reader.line_num + form.skip + 1, lines.parts
                tally.lines = begin - 1
                if not row or (tally.columns != 1 and len(row) == 1 and not parts[0].strip()):
                    if before == "\r" != end:
                        raise ValueError(f"{path}: the text in line {line - 1} is torn by a carriage return: quote it")
                    blank = blank or (line if tally.columns == 1 else 0)
                    tally.empty.append(tally.rows)
                    parts.clear()
                    continue
                if not tally.columns:
                    tally.columns, end = len(row), re.search(r"[\r\n]*$", parts[-1])[0]
                if len(row) != tally.columns:
                    _explain_width(path, line, row, tally.columns, form)
                if tally.columns == 1:
                    _require_alone(path, line, blank, end, parts[-1])
                tally.rows += 1
                tally.breaks += len(parts) - 1
                before = parts[-1][-1:]
                yield line, row
                parts.clear()
        except csv.Error as error:
            never = "unexpected end" in str(error)
            _explain_mark(path, form, begin, None if never else reader.line_num + form.skip)


def read_rows(path, form, lines=None):
    """Yield the rows of a file as lists of fields, the header first; blank lines are passed over.

    Raises ValueError, naming the line where the trouble begins, for a row that has more or fewer columns than the
    first, a quotation mark that is left open or swallows rows, and bytes of another encoding.
    """
    lines, suspect = lines or _Lines(form), False
    for _, row in _read_records(path, form, lines):
        suspect = suspect or (len(lines.parts) > 1 and may_hold_rows(row, form.separator))
        yield row
    if suspect:
        _require_own_rows(path, form)


def _profile(path, form):
    """Return the Profile of all rows of a file."""
    profile, lines = Profile(form.separator, form.spaced), _Lines(form)
    for _, row in _read_records(path, form, lines):
        profile.add(row, "".join(lines.parts))
    return profile


def _require_own_rows(path, form):
    """Raise ValueError for the first row of several lines that holds what seem to be rows of their own."""
    profile, lines = _profile(path, form), _Lines(form)
    for line, row in _read_records(path, form, lines):
        if len(lines.parts) > 1 and profile.has_swallowed(row):
            raise ValueError(
                f"{path}, line {line}: a quotation mark opens a text, and what follows up to the next mark looks like "
                "rows of their own: double each mark inside a text, or put every field of the table in double quotes"
            )


def _require_alone(path, line, blank, end, last):
    """Raise ValueError for a row of one column before which a line is blank, or whose end is not that of the first."""
    if blank:
        raise ValueError(f'{path}, line {blank} is blank: write "" if it is a text, or delete it')
    if last.endswith(("\r", "\n")) and not last.endswith(end or "\n") or (end == "\n" and last.endswith("\r\n")):
        raise ValueError(
            f"{path}, line {line} ends otherwise than the first one: is its text torn by a line break? Such a text "
            "stands in double quotes"
        )


def _split_sample(sample, separator, quoted, cut, escaped=False):
    """Return the rows of a sample, and [] as the last one if it cannot be read that far.

    A text in which a sample that is `cut` ends is no row, and no fault. Quotes may be escaped by backslashes, and are
    taken for that where the rows do not fit otherwise.
    """
    rows, problem = [], ""
    text = re.sub(r'(\\+)"', _double_marks, sample) if escaped else sample
    try:
        for row in csv.reader(io.StringIO(text, newline=""), **Dialect(separator, quoted=quoted).options()):
            rows += [row] if any(field.strip() for field in row) else []
    except csv.Error as error:
        problem = str(error)
    if not escaped and '\\"' in sample and (problem or len(set(map(len, rows))) > 1):
        return _split_sample(sample, separator, quoted, cut, escaped=True)
    is_sound = not problem or (cut and rows and "unexpected end" in problem)
    return rows if is_sound else [*rows, []]


def _is_prose(rows):
    """Return True if a blank follows each separator, as it does in a sentence."""
    return all(field[:1] == " " for row in rows for field in row[1:])


def _count_typed(rows):
    """Return how many columns hold labels, numbers, dates or ids."""
    columns = [Column() for _ in rows[0]]
    for row in rows:
        for column, cell in zip(columns, row):
            column.add(cell)
    return sum(column.is_typed for column in columns)


def _find_separator(path, sample, usual, cut):
    """Return what separates the columns in a sample: the usual, unless another one fits better."""
    rows = {s: _split_sample(sample, s, not s == usual == "\t", cut) for s in DELIMITERS}
    if not rows[usual]:  # nothing but separators
        return usual
    fits = [s for s, found in rows.items() if len(set(map(len, found))) == 1 and len(found[0]) > 1]
    few = len(rows[usual]) < 3
    if usual in fits and _is_prose(rows[usual]):  # "1;good soup, bad tea"
        others = [s for s in fits if s != usual and not any(field[:1] == " " for row in rows[s] for field in row[1:])]
        candidates = others or [usual]
    elif usual in fits:
        candidates = [s for s in fits if s == usual or not _is_prose(rows[s])]
    else:
        meant = bool(rows[usual]) and len(rows[usual][0]) > 1  # the usual one, and a row is wrong
        candidates = [s for s in fits if not meant or not (few or _is_prose(rows[s]))]
    if len(candidates) > 1 and usual in candidates and not few:  # one or two rows prove nothing
        candidates = [s for s in candidates if _count_typed(rows[s])] or [usual]
    if len(candidates) > 1:
        names = " or ".join(DELIMITERS[separator] for separator in candidates)
        raise ValueError(
            f"{path}: its columns stand apart by {names}: say which in a first line, such as sep={candidates[0]}"
        )
    return candidates[0] if candidates else usual


def sniff(path, kind, encoding="utf-8"):
    """Return the Form that the beginning of a file shows; `kind` is ".csv" or ".tsv"."""
    usual = "\t" if kind == ".tsv" else ","
    with open_text(path, normalize_encoding(encoding)) as file:
        sample = file.read(SAMPLE)
    cut = len(sample) == SAMPLE
    sample = sample.removeprefix("\ufeff")
    first = re.match(r'(?i)"?sep=(.)"?(\r\n|\r|\n)', sample)
    if first:
        return Dialect(first[1], normalize_encoding(encoding), skip=1)
    if cut:
        sample = sample[: 1 + max(sample.rfind("\n"), sample.rfind("\r"))] or sample
    separator = _find_separator(path, sample, usual, cut) if sample.strip() else usual
    return Dialect(separator, normalize_encoding(encoding), quoted=separator != "\t" or kind != ".tsv")


def _try_form(path, form, other, problem, consume, tally):
    """Return (what `consume` makes of a file read in another Form, whether that is proven to be the right one).

    What explains all marks is right where the first Form has failed. Where it has not, the marks must belong to the
    format, and lines that are rows by themselves are never joined, unless their column is always quoted.
    """
    try:
        seen = _profile(path, other)
    except ValueError:  # it is not written that way
        return None, False
    if seen.stray:
        return None, False
    if not problem:
        before = _profile(path, form)
        joined = seen.rows < before.rows
        proven = seen.always_quoted if joined else before.stray if other.spaced else seen.is_quoted_as_a_rule
        if len(seen.columns) != len(before.columns) and (joined or not proven):
            raise ValueError(
                f"{path}: it has {before.rows} rows of {len(before.columns)} columns, or {seen.rows} of "
                f"{len(seen.columns)} if quotes enclose fields: save it as CSV, with all fields quoted"
            )
        if not proven:
            return None, False
    try:
        return consume(read_rows(path, other, _Lines(other, tally))), True
    except ValueError:
        return None, False


def read_delimited(path, kind, encoding="utf-8", consume=list, setting="ENCODING", tally=None):
    """Read a file of delimited text in the Form that it is written in; return (what `consume` made of its rows, Form).

    `consume` is a function of an iterator of rows. A Form that is unusual for its `kind` is printed. `tally`, an empty
    Tally, takes up how many rows, columns and lines there are. Raises ValueError.
    """
    try:
        form = sniff(path, kind, encoding)
        lines, problem, result = _Lines(form), None, None
        try:
            result = consume(read_rows(path, form, lines))
        except UnicodeError:
            raise
        except ValueError as error:
            problem = error
        counted = lines.tally
        for other in _other_forms(form, lines, problem):
            found, proven = _try_form(path, form, other, problem, consume, attempt := Tally())
            if proven:
                result, form, problem, counted = found, other, None, attempt
                break
    except UnicodeError as error:
        check_encoding(path, encoding, OPEN_FUNCTIONS[split_extension(path)[1]], setting)
        raise ValueError(f"{path}: {error}") from None
    if problem:
        raise problem
    if tally is not None:
        vars(tally).update(vars(counted))
    if unusual := form.describe(kind):
        print(f"{path} is read as a table with {unusual}")
    return result, form


def _other_forms(form, lines, problem):
    """Return in which other Forms a file may be written, given what was seen in it."""
    if not form.quoted:
        quoted = [replace(form, quoted=True)] if lines.mark else []
        return quoted + [replace(one, escaped=True) for one in quoted if lines.backslash]
    spaced = [replace(form, spaced=True)] if lines.mark else []
    escaped = [replace(form, escaped=True)] if problem and lines.backslash else []
    return spaced + escaped + [replace(one, spaced=True) for one in escaped if spaced]
