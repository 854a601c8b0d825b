//! Takes load reports in, refuses the insane ones, records the rest on the board.
