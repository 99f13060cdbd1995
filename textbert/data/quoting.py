"""What the quotes of a delimited file reveal: how its columns are quoted, and whether a quoted field swallowed rows.

`csv_reader.read_delimited` decides by this whether a file, also a TSV, is quoted.
"""

import re
from collections.abc import Collection

MAX_LABEL_VALUES = 20  # different values in a column of labels

MAX_SHAPES = 5  # different shapes in a column of numbers, dates or ids

MAX_SHAPE_LENGTH = 40  # characters of a cell that has a shape


def _shape(cell: str) -> str:
    """Return what a cell looks like: "0-0-0" for a date, "x" for a word with digits, "" for a long cell."""
    if len(cell) > MAX_SHAPE_LENGTH:
        return ""
    return re.sub(r"\w+", lambda match: "0" if match[0].isdigit() else "x" if re.search(r"\d", match[0]) else "a", cell)


def is_multiline(field: str) -> bool:
    """Return True if a field contains a line break."""
    return "\n" in field or "\r" in field


class ColumnSummary:
    """The different values of a column, if they are few, and their different shapes.

    rows : number of cells added
    spaced_rows : number of those that begin with a space
    """

    def __init__(self) -> None:
        self.rows = self.spaced_rows = 0
        self.values: set[str] = set()
        self.shapes: set[str] = set()

    def add(self, cell: str) -> None:
        """Add a cell; the first row may be a header, so its shape does not count."""
        self.rows += 1
        self.spaced_rows += cell[:1] == " "
        if len(self.values) <= MAX_LABEL_VALUES:
            self.values.add(cell)
        if self.rows > 1 and len(self.shapes) <= MAX_SHAPES:
            self.shapes.add(_shape(cell))

    @property
    def is_categorical(self) -> bool:
        """Whether its values repeat, as labels do."""
        return len(self.values) <= MAX_LABEL_VALUES and 2 * len(self.values) <= self.rows

    @property
    def is_typed(self) -> bool:
        """Whether it holds labels, numbers, dates or ids, by which a row differs from a line of prose."""
        has_digits = self.shapes and all(re.search("[0x]", shape) and shape.count(" ") < 2 for shape in self.shapes)
        return self.is_categorical or bool(has_digits and len(self.shapes) <= MAX_SHAPES)

    def accepts(self, cell: str) -> bool:
        """Return True if a cell would fit in this column, which must be typed."""
        return cell in self.values if self.is_categorical else _shape(cell) in self.shapes


def find_quoted_columns(raw: str, fields: list[str], skipinitialspace: bool) -> tuple[set[int], bool]:
    """Return (the positions of a row's quoted fields, whether an unquoted field contains a quote).

    raw : the row as it is in the file, with quotes in quoted fields doubled
    fields : the fields that csv.reader makes of it
    """
    columns, has_stray_quote, position = set(), False, 0
    for number, field in enumerate(fields):
        while skipinitialspace and raw[position : position + 1] == " ":
            position += 1
        if raw[position : position + 1] == '"':
            columns.add(number)
            position += len(field) + field.count('"') + 3  # doubled quotes, the two around the field, a delimiter
        else:
            has_stray_quote = has_stray_quote or '"' in field
            position += len(field) + 1
    return columns, has_stray_quote


class QuotingProfile:
    """How the fields of a file are quoted, and what its columns hold, when it is read in one dialect.

    rows : number of rows added
    columns : a ColumnSummary for each column, of its fields without a line break
    has_stray_quote : an unquoted field contains a quote, which no program that writes CSV allows
    """

    def __init__(self, delimiter: str, skipinitialspace: bool = False) -> None:
        self.delimiter, self.skipinitialspace = delimiter, skipinitialspace
        self.rows = 0
        self.columns: list[ColumnSummary] = []
        self.has_stray_quote = False
        self._has_doubled_quote = False  # in a quoted field
        self._has_necessary_quotes = False  # a quoted field of one line contains a quote or delimiter
        self._has_needless_quotes = False  # a quoted field contains no quote, comma or line break
        self._quoted_in_first_row: Collection[int] = frozenset()
        self._quoted_in_later_rows: set[int] = set()  # in all of them
        self._unquoted_commas = self._quoted_commas = 0  # fields with a comma

    def add(self, fields: list[str], raw: str) -> None:
        """Add a row: its fields, and the text that they were read from."""
        self.rows += 1
        quoted_columns: set[int] = set()
        if '"' in raw:
            quoted_columns, has_stray_quote = find_quoted_columns(raw, fields, self.skipinitialspace)
            self.has_stray_quote = self.has_stray_quote or has_stray_quote
        if self.rows == 1:
            self._quoted_in_first_row, self.columns = quoted_columns, [ColumnSummary() for _ in fields]
        else:
            self._quoted_in_later_rows = (
                quoted_columns if self.rows == 2 else self._quoted_in_later_rows & quoted_columns
            )
        for number, (column, field) in enumerate(zip(self.columns, fields)):
            if number in quoted_columns:
                self._add_quoted(field)
            else:
                self._unquoted_commas += "," in field
            if not is_multiline(field):
                column.add(field)

    def _add_quoted(self, field: str) -> None:
        has_quote, has_break = '"' in field, is_multiline(field)
        self._has_doubled_quote |= has_quote
        self._has_necessary_quotes |= not has_break and (has_quote or self.delimiter in field)
        self._has_needless_quotes |= not (has_quote or has_break or "," in field)
        self._quoted_commas += "," in field

    @property
    def always_quoted(self) -> Collection[int]:
        """The columns that are quoted in each row below the first; if there is only one such row, in the first as well.

        Of a file of one row these are its columns, if they are at least two and all quoted.
        """
        first, later = self._quoted_in_first_row, self._quoted_in_later_rows
        if self.rows == 1:
            return first if 1 < len(first) == len(self.columns) else frozenset()
        return later if self.rows > 2 else later.intersection(first)

    @property
    def quotes_when_necessary(self) -> bool:
        """Whether fields of one line are quoted where they have to be, and none of them lacks its quotes."""
        return self._has_necessary_quotes and not self.has_stray_quote

    @property
    def has_format_quotes(self) -> bool:
        """Whether quotes, in a file that can be read without them, belong to the format and not to the texts.

        They do if quotes are doubled, if a column is always quoted, or if exactly the fields with commas are quoted, as
        spreadsheets do even where the delimiter is a tab.
        """
        quotes_commas = self._quoted_commas > 2 and not self._unquoted_commas and not self._has_needless_quotes
        return not self.has_stray_quote and (self._has_doubled_quote or bool(self.always_quoted) or quotes_commas)


def _split_field(fields: list[str], position: int, delimiter: str) -> list[tuple[list[str], set[int]]]:
    """Return the rows that a multiline field would become if each of its lines were a row.

    They are pairs of (cells, the positions of the cells that come from the field); the first has the fields before it,
    the last the fields after it. Empty lines are left out where the table has several columns.
    """
    first, *inner, last = re.split(r"\r\n|\r|\n", fields[position])
    inner = [line for line in inner if line.strip() or len(fields) == 1]
    width = len(fields)
    return [
        ([*fields[:position], *first.split(delimiter)], set(range(position, width))),
        *((line.split(delimiter) if line.strip() else [], set(range(width))) for line in inner),
        ([*last.split(delimiter), *fields[position + 1 :]], set(range(position + 1))),
    ]


def may_have_swallowed_rows(fields: list[str], delimiter: str) -> bool:
    """Return True if a line of a multiline field has as many columns as its row: a SwallowedRowDetector must decide."""
    lines = [
        line for i, field in enumerate(fields) if is_multiline(field) for line in _split_field(fields, i, delimiter)
    ]
    return any(len(cells) == len(fields) and len(positions) > (len(fields) > 1) for cells, positions in lines)


class SwallowedRowDetector:
    r"""Distinguishes a multiline text from rows that a quote, not doubled as it should be, has joined into a field.

    profile : QuotingProfile of the whole file

    This file has four rows. A quote at the start of the second one's text is a part of it, and was not doubled:

        1,soup
        0,"we loved it
        1,never again"
        0,tea

    csv.reader reads three rows, the second of which is ``["0", "we loved it\n1,never again"]``. Its field has two
    lines. If each were a row, they would be ``["0", "we loved it"]`` and ``["1", "never again"]``: both have two cells,
    as many as the table has columns, and "1" fits in the first column, which holds numbers. So `has_swallowed_rows`
    returns True. If the second line were ``so good``, which is one cell, or ``then,never again``, where "then" is not a
    number, the field would be a text of two lines.

    Columns that are quoted in every row are not suspected: the program that wrote them knew how to quote.
    """

    def __init__(self, profile: QuotingProfile) -> None:
        self.profile = profile
        self.typed_columns = {number for number, column in enumerate(profile.columns) if column.is_typed}

    def has_swallowed_rows(self, fields: list[str]) -> bool:
        """Return True if a multiline field of this row seems to hold rows."""
        multiline = [i for i, field in enumerate(fields) if is_multiline(field)]
        return any(self._holds_rows(fields, i) for i in multiline if i not in self.profile.always_quoted)

    def _holds_rows(self, fields: list[str], position: int) -> bool:
        """Return True if the lines of a field are rows, by their number of cells and by what is in them."""
        lines = _split_field(fields, position, self.profile.delimiter)
        rows = [
            (cells, positions)
            for cells, positions in lines
            if len(cells) == len(fields) and not self._is_punctuation(cells, positions)
        ]
        if not self.typed_columns:
            is_tab_separated = len(fields) > 1 and self.profile.delimiter == "\t"
            has_tab = is_tab_separated and any(len(positions) > 1 for _, positions in rows)
            return not self.profile.quotes_when_necessary and (has_tab or len(rows) == len(lines))
        has_fitting_row = any(self._fits_columns(cells, self.typed_columns & positions) for cells, positions in rows)
        return has_fitting_row and (len(rows) == len(lines) or not self.profile.quotes_when_necessary)

    def _fits_columns(self, cells: list[str], positions: set[int]) -> bool:
        """Return True if the cells at these positions, one or more, fit in their typed columns."""
        return bool(positions) and all(self.profile.columns[i].accepts(cells[i]) for i in positions)

    def _is_punctuation(self, cells: list[str], positions: set[int]) -> bool:
        """Return True if a delimiter in the line is punctuation of prose: before a space, or within a number."""
        profile = self.profile
        if profile.delimiter not in (",", ";") or (self.typed_columns and not profile.quotes_when_necessary):
            return False
        return any(
            (cells[i][:1] == " " and 2 * profile.columns[i].spaced_rows < profile.rows)
            or (cells[i - 1][-1:].isdigit() and i not in self.typed_columns and re.match(r"\d{3}(?!\d)", cells[i]))
            for i in positions - {min(positions)}
        )
