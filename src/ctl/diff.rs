//! What differs between two texts, as a unified diff.
//!
//! Why our own: it is the one place where a person sees what a change of a key does to a file,
//! before it does; `diff` need not be installed, and secrets never go through a temporary file.
//!
//! How data passes: lines -> what both begin and end with is set aside -> Myers' greedy algorithm
//! over the rest -> hunks with three lines around each change.
//!
//! Invariants:
//! * Removing the added lines and the removed marks gives the old text back, and the other way
//!   round the new one; a test holds it to that for random texts.
//! * Time and memory are bounded by `limits::DIFF_EDITS_MAX`; past it the rest is one block.
//!
//! Sources: Myers, "An O(ND) Difference Algorithm and Its Variations" (1986); POSIX `diff -u`.

use crate::base::limits;

/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;

/// One line of a diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// `@@ -1,2 +1,3 @@`.
    Hunk(String),
    /// In both.
    Same(&'a str),
    /// In the old text only.
    Removed(&'a str),
    /// In the new text only.
    Added(&'a str),
}

/// The diff from `old` to `new`; empty if they are equal. A last line without its line feed is
/// shown as one that differs.
#[must_use]
pub fn unified<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    hunks(&edits(&old, &new))
}

/// Every line of both texts, in order.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) =
        (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let pairs = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = pairs.take_while(|(a, b)| a == b).count();
    let (old_middle, old_tail) = old_rest.split_at(old_rest.len() - tail);
    let (new_middle, _) = new_rest.split_at(new_rest.len() - tail);
    let mut lines: Vec<Line<'a>> = old.iter().take(head).map(|line| Line::Same(line)).collect();
    lines.extend(middle(old_middle, new_middle));
    lines.extend(old_tail.iter().map(|line| Line::Same(line)));
    lines
}

/// The shortest way from `old` to `new`, or all of one and then all of the other.
fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let most = (old.len() + new.len()).min(limits::DIFF_EDITS_MAX);
    match trace(old, new, most) {
        Some(trace) => walk_back(old, new, most, &trace),
        None => {
            let removed = old.iter().map(|line| Line::Removed(line));
            removed.chain(new.iter().map(|line| Line::Added(line))).collect()
        }
    }
}

/// Myers' `V`: how far in `old` each diagonal has come. Diagonal `k` stands at `k + offset`.
type Reached = Vec<usize>;

fn reached(v: &Reached, diagonal: usize) -> usize {
    v.get(diagonal).copied().unwrap_or_default()
}

/// `V` before each round, until the end is reached; `None` after `most` edits.
fn trace(old: &[&str], new: &[&str], most: usize) -> Option<Vec<Reached>> {
    let offset = most + 1;
    let mut v: Reached = vec![0; 2 * offset + 1];
    let mut rounds = Vec::new();
    for d in 0..=most {
        rounds.push(v.clone());
        for diagonal in (offset - d..=offset + d).step_by(2) {
            let down = goes_down(&v, diagonal, offset, d);
            let mut x =
                if down { reached(&v, diagonal + 1) } else { reached(&v, diagonal - 1) + 1 };
            let mut y = x + offset - diagonal;
            while x < old.len() && y < new.len() && old.get(x) == new.get(y) {
                (x, y) = (x + 1, y + 1);
            }
            if let Some(slot) = v.get_mut(diagonal) {
                *slot = x;
            }
            if x >= old.len() && y >= new.len() {
                return Some(rounds);
            }
        }
    }
    None
}

/// Whether the furthest way to this diagonal comes by an added line.
fn goes_down(v: &Reached, diagonal: usize, offset: usize, d: usize) -> bool {
    diagonal == offset - d
        || (diagonal != offset + d && reached(v, diagonal - 1) < reached(v, diagonal + 1))
}

fn walk_back<'a>(
    old: &[&'a str],
    new: &[&'a str],
    most: usize,
    trace: &[Reached],
) -> Vec<Line<'a>> {
    let offset = most + 1;
    let (mut x, mut y) = (old.len(), new.len());
    let mut lines = Vec::new();
    for (d, v) in trace.iter().enumerate().rev() {
        let diagonal = x + offset - y;
        let (before_x, before_y) = if d == 0 {
            (0, 0)
        } else {
            let down = goes_down(v, diagonal, offset, d);
            let before = if down { diagonal + 1 } else { diagonal - 1 };
            let before_x = reached(v, before);
            (before_x, before_x + offset - before)
        };
        while x > before_x && y > before_y {
            (x, y) = (x - 1, y - 1);
            lines.extend(old.get(x).map(|line| Line::Same(line)));
        }
        if d > 0 && x == before_x {
            lines.extend(new.get(before_y).map(|line| Line::Added(line)));
        } else if d > 0 {
            lines.extend(old.get(before_x).map(|line| Line::Removed(line)));
        }
        (x, y) = (before_x, before_y);
    }
    lines.reverse();
    lines
}

/// The changed lines with their surroundings, a `Hunk` in front of each group.
fn hunks<'a>(lines: &[Line<'a>]) -> Vec<Line<'a>> {
    let mut shown = Vec::new();
    let mut at = 0;
    while let Some(first) = next_change(lines, at) {
        let start = first.saturating_sub(CONTEXT).max(at);
        let mut end = first + 1;
        while let Some(next) = next_change(lines, end).filter(|next| next - end <= 2 * CONTEXT) {
            end = next + 1;
        }
        let stop = (end + CONTEXT).min(lines.len());
        let group = lines.get(start..stop).unwrap_or_default();
        shown.push(Line::Hunk(heading(lines.get(..start).unwrap_or_default(), group)));
        shown.extend(group.iter().cloned());
        at = stop;
    }
    shown
}

fn next_change(lines: &[Line<'_>], from: usize) -> Option<usize> {
    let rest = lines.get(from..)?;
    rest.iter().position(|line| !matches!(line, Line::Same(_))).map(|offset| from + offset)
}

fn heading(before: &[Line<'_>], group: &[Line<'_>]) -> String {
    let count =
        |lines: &[Line<'_>], of: fn(&Line<'_>) -> bool| lines.iter().filter(|l| of(l)).count();
    let in_old = |line: &Line<'_>| !matches!(line, Line::Added(_));
    let in_new = |line: &Line<'_>| !matches!(line, Line::Removed(_));
    let side = |of| {
        let (skipped, lines) = (count(before, of), count(group, of));
        // As `diff` does: a side without lines names the line in front of it.
        format!("{},{lines}", if lines == 0 { skipped } else { skipped + 1 })
    };
    format!("@@ -{} +{} @@", side(in_old), side(in_new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(old: &str, new: &str) -> String {
        let lines = unified(old, new).into_iter().map(|line| match line {
            Line::Hunk(text) => format!("{text}\n"),
            Line::Same(text) => format!(" {text}"),
            Line::Removed(text) => format!("-{text}"),
            Line::Added(text) => format!("+{text}"),
        });
        lines.collect()
    }

    #[test]
    fn a_diff_reads_as_diff_writes_it() {
        assert_eq!(shown("a\nb\n", "a\nb\n"), "");
        assert_eq!(shown("", "a\n"), "@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(shown("a\n", ""), "@@ -1,1 +0,0 @@\n-a\n");
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n";
        let new = old.replace("2\n3\n", "2\nx\n3\n").replace("14\n", "");
        let expected = "@@ -1,5 +1,6 @@\n 1\n 2\n+x\n 3\n 4\n 5\n\
                        @@ -11,4 +12,3 @@\n 11\n 12\n 13\n-14\n";
        assert_eq!(shown(old, &new), expected);
        assert_eq!(shown("a\nb\nc\n", "c\na\nb\n"), "@@ -1,3 +1,3 @@\n+c\n a\n b\n-c\n");
    }

    #[test]
    fn texts_without_anything_in_common_are_one_block() {
        let old: String = (0..2_000).map(|at| format!("old {at}\n")).collect();
        let new: String = (0..2_000).map(|at| format!("new {at}\n")).collect();
        let lines = unified(&old, &new);
        assert_eq!(lines.len(), 4_001);
        assert_eq!(lines[0], Line::Hunk("@@ -1,2000 +1,2000 @@".into()));
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_it(old in "([ab]\n){0,12}[ab]?", new in "([ab]\n){0,12}[ab]?") {
            let (lines_old, lines_new): (Vec<&str>, Vec<&str>) =
                (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
            let lines = edits(&lines_old, &lines_new);
            let side = |skip: fn(&Line<'_>) -> bool| -> String {
                let kept = lines.iter().filter(|line| !skip(line));
                kept.map(|line| match line {
                    Line::Same(text) | Line::Removed(text) | Line::Added(text) => *text,
                    Line::Hunk(_) => "",
                }).collect()
            };
            prop_assert_eq!(side(|line| matches!(line, Line::Added(_))), old.clone());
            prop_assert_eq!(side(|line| matches!(line, Line::Removed(_))), new.clone());
        }
    }
}
