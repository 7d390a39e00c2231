"""The grammar of a log: what may stand where, written down as clauses and checked entry by entry.

It is promises 3 and 4 in full: positions count, every start has its end, every run ends once.
`docs/grammar.md` shows it as a whole; `CLAUSES` is its table.

Rules of this package:

1. A **rule** watches one subject of one run (its life, its model calls, its tools) and knows
   nothing of the others. It is fed every event of its run and yields what is wrong.
2. What was not seen breaks no clause. Where a stream begins in the middle, or has a gap, a
   rule forgets what it knew (`forget`), and takes up again at the next certain moment.
3. Total: a stream may hold anything that its classes can hold.
4. No two rules tell of one mistake.

`millstream.testing.check_stream` is its public face: it reads streams of every form, and
tells the problems with their neighbours.
"""

from millstream.stream.grammar.clauses import CLAUSES, Clause, Violation
from millstream.stream.grammar.whole import StreamGrammar

__all__ = ["CLAUSES", "Clause", "StreamGrammar", "Violation"]
