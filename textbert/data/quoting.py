"""What the quotes of a delimited file prove: how its columns are quoted, and whether a quote has swallowed rows."""

import dataclasses
import re
from array import array

import numpy as np

FEW = 20  # different values that a column of labels has at most

SHAPES = 5  # different shapes that a column of numbers, dates or ids has at most


def _shape(cell):
    """Return what a cell looks like: "0-0-0" for a date, "x" for a word with digits; "" for what is too long."""
    if len(cell) > 40:
        return ""
    return re.sub(r"\w+", lambda match: "0" if match[0].isdigit() else "x" if re.search(r"\d", match[0]) else "a", cell)


def is_name(cell):
    """Return True if a cell may be the name of a column: short, and no sentence, but for "Ticket No." or "Nr."."""
    cell = re.sub(r"\b(No|Nr)\.$", r"\1", cell.rstrip())
    return len(cell) <= 50 and len(cell.split()) <= 4 and not cell.endswith((".", "!", "?", "\u3002"))


def is_question(cell, wordy=True):
    """Return True if a cell is a question or an instruction, as forms have it in their first row.

    If it is `wordy`, so is what has four words, or a scale such as (0/1).
    """
    words, cell = len(cell.split()), cell.rstrip()
    asks = cell.endswith(("\uff1f", "\uff1a")) or (words > 2 and cell.endswith(("?", ":")))
    return asks or (wordy and (words > 3 or bool(re.search(r"\w ?\([^()]*\d[^()]*\)$", cell))))


def is_number(cells):
    """Return which cells of a Series are numbers, dates, or empty, as a Series of True and False."""
    return cells.str.fullmatch(r"[-+.,:/%\s\d]*(?:\d[-+.,:/%T\s\dZ]*)?")


def is_id(cells):
    """Return which cells of a Series are one word of ASCII with a digit, as a Series of True and False."""
    return cells.str.fullmatch(r"[!-~]*\d[!-~]*")


@dataclasses.dataclass
class Tally:
    """How many rows and columns a file has, and what of its lines is no row."""

    rows: int = 0
    columns: int = 0
    lines: int = 0
    breaks: int = 0  # within fields
    skip: int = 0
    empty: array = dataclasses.field(default_factory=lambda: array("q"))  # the number of rows before each

    def number_rows(self):
        """Return the number of each row as a spreadsheet shows it, minus 1: empty lines count, an array (rows,)."""
        rows = np.arange(self.rows)
        return rows + np.searchsorted(np.frombuffer(self.empty, np.int64), rows, side="right") if self.empty else rows

    def describe(self, name):
        """Return a sentence about a file whose lines are not its rows; "" if they are."""
        reasons = {"sep= line": self.skip, "empty lines": len(self.empty), "line breaks in quoted fields": self.breaks}
        reasons = [f"{what}: {count:,}" for what, count in reasons.items() if count]
        if not reasons:
            return ""
        return f"{name}: {self.rows:,} rows of {self.columns} columns in {self.lines:,} lines ({'; '.join(reasons)})"


class Column:
    """What a column holds: the different values if there are few, and their shapes."""

    def __init__(self):
        self.rows, self.spaced, self.values, self.shapes = 0, 0, set(), set()

    def add(self, cell):
        """Take note of a cell; that of the first row, perhaps a name, has no shape."""
        self.rows += 1
        self.spaced += cell[:1] == " "
        if len(self.values) <= FEW:
            self.values.add(cell)
        if self.rows > 1 and len(self.shapes) <= SHAPES:
            self.shapes.add(_shape(cell))

    @property
    def has_few_values(self):
        """Whether its values come again and again, as labels do."""
        return len(self.values) <= FEW and 2 * len(self.values) <= self.rows

    @property
    def is_typed(self):
        """Whether it holds labels, numbers, dates or ids, by which a row can be told from a line of prose."""
        numbered = self.shapes and all(re.search("[0x]", shape) and shape.count(" ") < 2 for shape in self.shapes)
        return self.has_few_values or bool(numbered and len(self.shapes) <= SHAPES)

    def fits(self, cell):
        """Return True if a typed column could hold a cell."""
        return cell in self.values if self.has_few_values else _shape(cell) in self.shapes


def find_quoted(record, row, spaced):
    """Return (the set of columns that are quoted in a record, whether an unquoted field holds a quote)."""
    quoted, stray, position = set(), False, 0
    for number, field in enumerate(row):
        while spaced and record[position : position + 1] == " ":
            position += 1
        if record[position : position + 1] == '"':
            quoted.add(number)
            position += len(field) + field.count('"') + 3
        else:
            stray = stray or '"' in field
            position += len(field) + 1
    return quoted, stray


class Profile:
    """What is seen in all rows of a file, read in one dialect.

    `stray` : an unquoted field holds a quote, which no program that writes CSV lets stand.
    `escapes` : a quoted field holds a quote, properly doubled.
    """

    def __init__(self, separator, spaced=False):
        self.separator, self.is_spaced = separator, spaced
        self.rows, self.columns, self.stray, self.escapes, self.encloses = 0, [], False, False, False
        self._first = self._always = frozenset()
        self._commas = [0, 0]  # fields with a comma: unquoted, quoted
        self._needless = False  # a quoted field without quote or comma

    def add(self, row, record):
        """Take note of a row and of the text that it was read from."""
        self.rows += 1
        quoted = set()
        if '"' in record:
            quoted, stray = find_quoted(record, row, self.is_spaced)
            self.stray = self.stray or stray
        if self.rows == 1:
            self._first, self.columns = quoted, [Column() for _ in row]
        else:
            self._always = quoted if self.rows == 2 else self._always & quoted
        for number, (column, field) in enumerate(zip(self.columns, row)):
            several = "\n" in field or "\r" in field
            if number in quoted:
                self.escapes = self.escapes or '"' in field
                self.encloses = self.encloses or not several and ('"' in field or self.separator in field)
                self._needless = self._needless or not ("," in field or '"' in field or several)
            self._commas[number in quoted] += "," in field
            if not several:
                column.add(field)

    @property
    def always_quoted(self):
        """The columns that are quoted in each row; in a file of two rows the first must say so, too."""
        if self.rows == 1:
            return self._first if 1 < len(self._first) == len(self.columns) else frozenset()
        return self._always if self.rows > 2 else self._always & self._first

    @property
    def is_proper(self):
        """Whether its writer knows how to quote: single lines show it, and none shows the opposite."""
        return self.encloses and not self.stray

    @property
    def is_quoted_as_a_rule(self):
        """Whether the quotes of a file that could be read without them belong to the format and not to the texts."""
        spreadsheet = self._commas[1] > 2 and not self._commas[0] and not self._needless  # quotes commas, too
        return not self.stray and (self.escapes or bool(self.always_quoted) or spreadsheet)

    def has_swallowed(self, row):
        """Return True if a field of several lines in a row seems to hold rows of their own."""
        fields = [i for i, field in enumerate(row) if "\n" in field or "\r" in field]
        return any(self._looks_like_rows(row, i) for i in fields if i not in self.always_quoted)

    def _looks_like_rows(self, row, place):
        """Return True if the lines of a field are rows, by their number of columns and by what stands in them."""
        lines = split_lines(row, place, self.separator)
        typed = {number for number, column in enumerate(self.columns) if column.is_typed}
        whole = [
            (cells, own) for cells, own in lines if len(cells) == len(row) and not self._is_prose(cells, own, typed)
        ]
        if not typed:
            parted = len(row) > 1 and self.separator == "\t" and any(len(own) > 1 for _, own in whole)
            return not self.is_proper and (parted or len(whole) == len(lines))
        alike = any(typed & own and all(self.columns[i].fits(cells[i]) for i in typed & own) for cells, own in whole)
        return alike and (len(whole) == len(lines) or not self.is_proper)

    def _is_prose(self, cells, own, typed):
        """Return True for a line in which a separator is punctuation: a space or the rest of a number follows."""
        if self.separator not in (",", ";") or (typed and not self.is_proper):
            return False
        return any(
            (cells[i][:1] == " " and 2 * self.columns[i].spaced < self.rows)
            or (cells[i - 1][-1:].isdigit() and i not in typed and re.match(r"\d{3}(?!\d)", cells[i]))
            for i in own - {min(own)}
        )


def split_lines(row, place, separator):
    """Return what a field of several lines holds if its lines are rows: (cells, the places of those from the field)."""
    first, *inner, last = re.split(r"\r\n|\r|\n", row[place])
    inner = [line for line in inner if line.strip() or len(row) == 1]
    found = [([*row[:place], *first.split(separator)], set(range(place, len(row))))]
    found += [(line.split(separator) if line.strip() else [], set(range(len(row)))) for line in inner]
    return [*found, ([*last.split(separator), *row[place + 1 :]], set(range(place + 1)))]


def may_hold_rows(row, separator):
    """Return True if a line of a field has as many columns as the row, so that a `Profile` of the file must judge."""
    fields = [i for i, field in enumerate(row) if "\n" in field or "\r" in field]
    lines = [line for i in fields for line in split_lines(row, i, separator)]
    return any(len(cells) == len(row) and len(own) > (len(row) > 1) for cells, own in lines)
