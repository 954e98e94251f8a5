//! Which statements a plugin may not run: those that begin or end transactions, or prepare what outlives them.

use super::error::SqlError;

/// A transaction that a plugin could end is none that makes its changes happen once.
const REFUSED: [&str; 11] = [
    "ABORT",
    "BEGIN",
    "COMMIT",
    "DEALLOCATE",
    "DISCARD",
    "END",
    "PREPARE",
    "RELEASE",
    "ROLLBACK",
    "SAVEPOINT",
    "START",
];

/// Refuses what the call's own transaction would not survive.
pub(super) fn check(statement: &str) -> Result<(), SqlError> {
    let word = first_word(statement);
    match REFUSED.iter().find(|refused| word.eq_ignore_ascii_case(refused)) {
        Some(refused) => Err(SqlError::refused(
            "0A000",
            format!(
                "{refused} is not for plugins: the statements of a step run in one transaction, which is committed when the step \
                 returns an outcome and rolled back when it fails"
            ),
        )),
        None => Ok(()),
    }
}

/// The keyword that a statement begins with, as the databases see it: empty statements and comments before it do not count.
fn first_word(statement: &str) -> &str {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || matches!(c, '\u{b}' | ';'));
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_comment(comment);
        } else {
            break;
        }
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    &rest[..end]
}

/// What follows a comment that was opened once. PostgreSQL's comments nest; SQLite, whose do not, asks its authorizer.
fn after_comment(text: &str) -> &str {
    let mut depth = 1;
    let mut rest = text;
    while depth > 0 {
        let (open, close) = (rest.find("/*"), rest.find("*/"));
        let Some(close) = close else { return "" };
        match open {
            Some(open) if open < close => {
                depth += 1;
                rest = &rest[open + 2..];
            }
            _ => {
                depth -= 1;
                rest = &rest[close + 2..];
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_ends_a_transaction_is_refused_however_it_is_dressed() {
        for statement in [
            "COMMIT",
            " \t\r\n\u{b}\u{c}commit and chain",
            ";; commit",
            "-- a\nCommit",
            "-- a\rcommit",
            "/* a */ROLLBACK TO x",
            "/* /* nested */ */ end",
            "/**//*;*/;abort;",
            "/*/**/*/commit",
            "prepare transaction 'x'",
            "START TRANSACTION",
            "commit/**/",
        ] {
            assert!(check(statement).is_err(), "{statement}");
        }
    }

    #[test]
    fn everything_else_is_the_database_s_to_judge() {
        for statement in [
            "",
            "/* never closed",
            "-- only",
            "SELECT 1",
            "WITH x AS (SELECT 1) SELECT 'commit'",
            "endings",
            "(SELECT 1)",
            "UPDATE t SET a = 'x'; COMMIT",
            "commitx",
            "/*/ commit */ select 1",
        ] {
            assert!(check(statement).is_ok(), "{statement}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text: String, noise in "[-/*; \ncommit]*") {
            let _ = check(&text);
            let _ = check(&noise);
        }
    }
}
