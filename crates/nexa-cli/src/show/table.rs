//! Tables: columns as wide as their widest cell, two spaces between them, nothing else.

/// A table as lines, each ended by a newline.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = head.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, widest) in cells.zip(&widths) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', widest + 2 - width(cell)));
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    #[test]
    fn columns_line_up_also_with_letters_of_two_bytes() {
        let rows = [vec!["Prüfer".into(), "succeeded".into()], vec!["B".into(), "failed".into()]];
        expect![[r#"
            AGENT   STATE
            Prüfer  succeeded
            B       failed
        "#]]
        .assert_eq(&super::table(&["AGENT", "STATE"], &rows));
    }
}
