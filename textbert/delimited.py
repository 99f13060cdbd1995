"""Delimited text, compressed or not, to rows of fields: strict, with line numbers, and in bounded memory."""

import csv
import io
import re
from dataclasses import dataclass, replace
from itertools import islice, zip_longest

from textbert.files import require_encoding
from textbert.packed import OPENERS, open_text, split_suffixes

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
SAMPLE = 2**18  # characters that show how a file is written
FEW = 20  # different values that a column of labels has at most

csv.field_size_limit(2**31 - 1)  # of a text; 131,072 otherwise


def get_codec(encoding):
    """Return an encoding for `open`; UTF-8 with or without a mark at its start. ValueError for a name that is none."""
    try:
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding is {encoding!r}, but must be an encoding's name, such as utf-8 or cp1252") from None
    return "utf-8-sig" if re.fullmatch(r"(?i)utf[-_]?8", encoding) else encoding


@dataclass(frozen=True)
class Form:
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
        found = [f"columns that stand apart by {SEPARATORS.get(self.separator, repr(self.separator))}"]
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

    def __init__(self, file, form):
        self.file, self.form = file, form
        self.first = self.last = ""  # lines of the row that is being read
        self.fresh = True
        self.backslash = self.mark = False  # a mark after a backslash; one where a field that csv.reader keeps begins

    def __iter__(self):
        form = self.form
        begins = form.separator + ('"' if not form.quoted else ' "')
        for number, line in enumerate(self.file):
            line = line if number else line.removeprefix("\ufeff")
            if number < form.skip:
                continue
            if '"' in line:
                self.backslash = self.backslash or '\\"' in line
                self.mark = self.mark or begins in line or line.startswith(begins[1:])
                line = re.sub(r'(\\+)"', _double_marks, line) if form.escaped else line
            if self.fresh:
                self.first, self.fresh = line, False
            self.last = line
            yield line


class _Columns:
    """What stands in the first and last column, to know a row again that a quotation mark has swallowed."""

    def __init__(self, separator):
        self.separator = separator
        self.seen = [set(), set()]
        self.suspects = []  # (line, row, swallowed beginnings, swallowed ends)

    def add(self, row):
        """Note what stands at the ends of a row."""
        for place, seen in zip((0, -1), self.seen):
            if len(seen) <= FEW:
                seen.add(row[place])

    def note(self, line, row, lines):
        """Note down a row of several lines whose inner lines have as many columns as rows have."""
        inner = [text for field in row if "\n" in field or "\r" in field for text in re.split(r"\r\n|\r|\n", field)]
        alike = [text.split(self.separator) for text in inner]
        alike = [
            cells for cells in alike if len(cells) == len(row) and not any(cell[:1].isspace() for cell in cells[1:])
        ]
        starts = set() if lines.first.startswith('"') else {cells[0] for cells in alike}
        ends = set() if lines.last.rstrip("\r\n").endswith('"') else {cells[-1] for cells in alike}
        if (starts or ends) and len(self.suspects) < 1000:
            self.suspects.append((line, starts, ends))

    def find_swallowed(self):
        """Return the line of the first row that holds what must be another row, or None."""
        known = [seen if len(seen) <= FEW else set() for seen in self.seen]
        return next((line for line, *cells in self.suspects if any(a & b for a, b in zip(known, cells))), None)


def _explain_width(path, line, row, width, form):
    name = SEPARATORS.get(form.separator, repr(form.separator))
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


def read_rows(path, form, lines=None):
    """Yield the rows of a file as lists of fields, the header first; blank lines are passed over.

    Raises ValueError, naming the line where the trouble begins, for a row that has more or fewer columns than the
    first, a quotation mark that is left open or swallows rows, and bytes of another encoding.
    """
    with open_text(path, form.encoding) as file:
        lines = lines or _Lines(None, form)
        lines.file = file
        reader = csv.reader(lines, **form.options())
        columns, width, begin, blank, end = _Columns(form.separator), 0, form.skip + 1, 0, ""
        try:
            for row in reader:
                line, begin, lines.fresh = begin, reader.line_num + form.skip + 1, True
                if not row or (width != 1 and len(row) == 1 and not lines.first.strip()):
                    blank = blank or (line if width == 1 else 0)
                    continue
                if not width:
                    width, end = len(row), re.search(r"[\r\n]*$", lines.last)[0]
                if len(row) != width:
                    _explain_width(path, line, row, width, form)
                if width == 1:
                    _require_alone(path, line, blank, end, lines.last)
                elif begin - line == 1:
                    columns.add(row)
                else:
                    columns.note(line, row, lines)
                yield row
        except csv.Error as error:
            never = "unexpected end" in str(error)
            _explain_mark(path, form, begin, None if never else reader.line_num + form.skip)
    if swallowed := columns.find_swallowed():
        raise ValueError(
            f"{path}, line {swallowed}: a quotation mark opens a text, and what follows up to the next mark looks like "
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


def _split_sample(sample, separator, quoted, cut):
    """Return the rows of a sample, and [] as the last one if it cannot be read that far.

    A text in which a sample that is `cut` ends is no row, and no fault.
    """
    rows = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), **Form(separator, quoted=quoted).options()):
            rows += [row] if any(field.strip() for field in row) else []
    except csv.Error as error:
        if not (cut and rows and "unexpected end" in str(error)):
            rows.append([])
    return rows


def _find_separator(path, sample, usual, cut):
    """Return what separates the columns in a sample: the usual, unless another one fits better."""
    rows = {s: _split_sample(sample, s, not s == usual == "\t", cut) for s in SEPARATORS}
    fits = [s for s, found in rows.items() if len(set(map(len, found))) == 1 and len(found[0]) > 1]
    others = [separator for separator in fits if separator != usual]
    if usual in fits:  # in prose a blank follows: "1;good soup, bad tea"
        prose = all(field[:1] == " " for row in rows[usual] for field in row[1:])
        others = [s for s in others if prose and not any(field[:1] == " " for row in rows[s] for field in row[1:])]
    if not others or (usual not in fits and len(rows[usual][0]) > 1 and len(rows[usual]) < 3):
        return usual
    if len(others) > 1:
        names = " or ".join(SEPARATORS[separator] for separator in others)
        raise ValueError(
            f"{path}: its columns stand apart by {names}: say which in a first line, such as sep={others[0]}"
        )
    return others[0]


def sniff(path, kind, encoding="utf-8"):
    """Return the Form that the beginning of a file shows; `kind` is ".csv" or ".tsv"."""
    usual = "\t" if kind == ".tsv" else ","
    with open_text(path, get_codec(encoding)) as file:
        sample = file.read(SAMPLE)
    cut = len(sample) == SAMPLE
    sample = sample.removeprefix("\ufeff")
    first = re.match(r'"?sep=(.)"?(\r\n|\r|\n)', sample)
    if first:
        return Form(first[1], get_codec(encoding), skip=1)
    if cut:
        sample = sample[: 1 + max(sample.rfind("\n"), sample.rfind("\r"))] or sample
    separator = _find_separator(path, sample, usual, cut) if sample.strip() else usual
    return Form(separator, get_codec(encoding), quoted=separator != "\t" or kind != ".tsv")


def _shows(plain, other):
    """Tell whether a file is meant as a second Form reads it: (rows read one way, rows read the other way)."""
    first, always = set(), None  # the columns in which the first row, and each row below it, stands in marks
    for count, (before, after) in enumerate(zip_longest(plain, other), start=1):
        if before is None or after is None:  # a text of several lines
            return True
        changed = {i for i, (a, b) in enumerate(zip(before, after)) if a != b and a.lstrip(" ").startswith('"')}
        if any('"' in after[i] or before[i].startswith(" ") for i in changed):
            return True
        if count == 1:
            first = changed
        else:
            always = changed if always is None else always & changed
    return bool(always and (count > 2 or always & first))


def read_delimited(path, kind, encoding="utf-8", consume=list, setting="ENCODING"):
    """Read a file of delimited text in the Form that it is written in; return (what `consume` made of its rows, Form).

    `consume` is a function of an iterator of rows. A Form that is unusual for its `kind` is printed. Raises ValueError.
    """
    try:
        form = sniff(path, kind, encoding)
        lines, problem, result = _Lines(None, form), None, None
        try:
            result = consume(read_rows(path, form, lines))
        except UnicodeError:
            raise
        except ValueError as error:
            problem = error
        for other in _other_forms(form, lines, problem):
            try:
                if problem or _shows(read_rows(path, form), read_rows(path, other)):
                    result, form, problem = consume(read_rows(path, other)), other, None
                    break
            except ValueError:  # it is not written that way
                pass
    except UnicodeError as error:
        require_encoding(path, encoding, OPENERS[split_suffixes(path)[1]], setting)
        raise ValueError(f"{path}: {error}") from None
    if problem:
        raise problem
    if unusual := form.describe(kind):
        print(f"{path} is read as a table with {unusual}")
    return result, form


def _other_forms(form, lines, problem):
    """Return in which other Forms a file may be written, given what was seen in it."""
    if not form.quoted:
        return [replace(form, quoted=True)] if lines.mark else []
    spaced = [replace(form, spaced=True)] if lines.mark else []
    return spaced + ([replace(form, escaped=True)] if problem and lines.backslash else [])


def count_rows(rows):
    """Return (the first row, or None if there is none; how many rows there are)."""
    rows = iter(rows)
    first = next(rows, None)
    return first, (first is not None) + sum(1 for _ in rows)
