//! The page as HTML, with what there is when it is asked for: readers without JavaScript see that, and its script replaces it.

use super::model::{Cell, Level, Problem, Status, Table};

/// The page with places, `{{name}}`, to be filled.
const PAGE: &str = include_str!("status.html");
/// Longest cell that is not broken into lines, as in the page's script.
const SHORT: usize = 24;

/// The page. Without a status it asks the reader for the server's token, and shows nothing else.
pub fn html(title: &str, status: Option<&Status>, nonce: &str) -> String {
    let (level, summary) = match status {
        Some(status) => (status.level, status.summary.as_str()),
        None => (Level::Plain, "This server shows its state to whoever has its token."),
    };
    let mut parts = PAGE.split("{{");
    let mut out = parts.next().unwrap_or_default().to_string();
    // Each place is filled once: what is put in is not looked through again.
    for part in parts {
        let (place, rest) = part.split_once("}}").unwrap_or_default();
        match place {
            "nonce" => out.push_str(nonce),
            "title" => escape(&mut out, title),
            "access" => out.push_str(if status.is_some() { "open" } else { "token" }),
            "level" => out.push_str(level.name()),
            "summary" => escape(&mut out, summary),
            "problems" => status.into_iter().for_each(|status| problems(&mut out, &status.problems)),
            _ => status.into_iter().flat_map(|status| &status.tables).for_each(|each| table(&mut out, each)),
        }
        out.push_str(rest);
    }
    out
}

fn problems(out: &mut String, problems: &[Problem]) {
    if problems.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"problems-head\"><h2 id=\"problems-head\">What to look at</h2><ul class=\"problems\">");
    for problem in problems {
        out.push_str(&format!("<li data-level=\"{}\"><p>", problem.level.name()));
        escape(out, &problem.what);
        out.push_str("</p><p>");
        // Between two backticks is a command.
        for (place, part) in problem.advice.split('`').enumerate() {
            let is_command = place % 2 == 1;
            out.push_str(if is_command { "<code>" } else { "" });
            escape(out, part);
            out.push_str(if is_command { "</code>" } else { "" });
        }
        out.push_str("</p></li>");
    }
    out.push_str("</ul></section>");
}

fn table(out: &mut String, table: &Table) {
    out.push_str(&format!("<section aria-labelledby=\"{0}-head\"><h2 id=\"{0}-head\">", table.id));
    escape(out, table.caption);
    out.push_str("</h2>");
    if table.rows.is_empty() {
        out.push_str("<p>");
        escape(out, table.empty);
        out.push_str("</p></section>");
        return;
    }
    // The roles say what the elements are: some browsers forget it where the style makes cards of the rows.
    out.push_str(&format!(
        "<table role=\"table\" aria-labelledby=\"{}-head\"><thead role=\"rowgroup\"><tr role=\"row\">",
        table.id
    ));
    for column in &table.columns {
        out.push_str("<th scope=\"col\" role=\"columnheader\"");
        out.push_str(if column.is_number { " class=\"number\">" } else { ">" });
        escape(out, column.name);
        out.push_str("</th>");
    }
    out.push_str("</tr></thead><tbody role=\"rowgroup\">");
    for row in &table.rows {
        out.push_str("<tr role=\"row\">");
        for (place, (one, column)) in row.iter().zip(&table.columns).enumerate() {
            cell(out, place == 0, one, column.name, column.is_number);
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    if table.left_out > 0 {
        out.push_str(&format!("<p>{} more are not shown.</p>", table.left_out));
    }
    out.push_str("</section>");
}

fn cell(out: &mut String, is_first: bool, cell: &Cell, column: &str, is_number: bool) {
    let (tag, role) =
        if is_first { ("th", "scope=\"row\" role=\"rowheader\"") } else { ("td", "role=\"cell\"") };
    out.push_str(&format!("<{tag} {role} data-level=\"{}\" data-column=\"", cell.level.name()));
    escape(out, column);
    let is_empty = ["", "–"].contains(&cell.text.as_str());
    let is_short = cell.text.chars().count() <= SHORT;
    let kind = if is_empty {
        "none"
    } else if is_short {
        "short"
    } else {
        "long"
    };
    out.push_str(&format!("\" class=\"{}{kind}\">", if is_number { "number " } else { "" }));
    escape(out, &cell.text);
    out.push_str(&format!("</{tag}>"));
}

/// Adds `text` so that it is a text in an element and in a quoted attribute.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}
