//! The table a person reads: aligned, and without a trailing blank.

use stack::table::Table;
use stack::terminal::Paint;

#[test]
fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_to_the_right() {
    let mut table = Table::new(&["name", "role", "pid"]);
    table.row(["primary", "database", "7"].map(str::to_owned));
    table.row(["é-1", "app", "12345"].map(str::to_owned));
    let expected = "\
\u{20} name     role        pid
\u{20} primary  database      7
\u{20} é-1      app       12345
";
    assert_eq!(table.render(Paint::plain()), expected);
}

#[test]
fn missing_cells_are_empty_and_surplus_ones_are_dropped() {
    let mut table = Table::new(&["name", "pid"]);
    table.row(["store"].map(str::to_owned));
    table.row(["read-1", "2", "surplus"].map(str::to_owned));
    let expected = "  name    pid\n  store\n  read-1    2\n";
    assert_eq!(table.render(Paint::plain()), expected);
}
