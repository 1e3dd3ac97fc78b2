//! Rows of words under each other.

/// Columns as wide as their widest word, three spaces between. What clients and proxies of the mesh say of themselves stands
/// in them, too: they move no cursor and colour nothing.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let shown = |cell: &String| cell.replace(char::is_control, "?");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_stand_under_each_other_and_nothing_commands_the_terminal() {
        let rows = [["NAME", "WHY"], ["a\u{1b}[2J\nb", "\u{9b}31m"], ["äö", ""]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(align(&rows), "NAME      WHY\na?[2J?b   ?31m\näö\n");
    }
}
