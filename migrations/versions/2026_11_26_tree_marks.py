"""Marks in the record tree: a record's place among a window's leaves is found by a few rows, not by counting them all."""

from alembic import op

from migrations.guards import grant

revision = "2026_11_26_tree_marks"
down_revision = "2026_11_26_retention"

TABLE = """
CREATE TABLE tree_mark (
    window_no INTEGER NOT NULL,
    journal_seq BIGINT NOT NULL,
    leaves BIGINT NOT NULL,
    CONSTRAINT pk_tree_mark PRIMARY KEY (window_no, journal_seq),
    CONSTRAINT fk_tree_mark_window_no FOREIGN KEY(window_no) REFERENCES "window" (no)
);
COMMENT ON COLUMN tree_mark.leaves IS 'leaves of the window before that report''s';
"""

MARKS = """
INSERT INTO tree_mark (window_no, journal_seq, leaves)
SELECT window_no, journal_seq, leaves FROM (
    SELECT window_no, journal_seq, leaves,
           lag(leaves) OVER (PARTITION BY window_no ORDER BY journal_seq) AS earlier
    FROM (
        SELECT r.window_no, r.journal_seq,
               sum(r.accepted) OVER (PARTITION BY r.window_no ORDER BY r.journal_seq) - r.accepted AS leaves
        FROM usage_report r JOIN checkpoint c ON c.window_no = r.window_no WHERE r.accepted > 0
    ) counted
) placed
WHERE leaves / 256 > earlier / 256
"""


def upgrade() -> None:
    op.execute(TABLE)
    grant("tree_mark")
    op.execute(MARKS)
