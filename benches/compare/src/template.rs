//! Fills the peers' config files in: `{name}` stands for a value.

use std::fmt::Display;

use anyhow::{Result, bail};

/// Puts values in the places of their names; a name that is left over is an error.
pub fn fill(template: &str, values: &[(&str, &dyn Display)]) -> Result<String> {
    let filled = values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &value.to_string()));
    match left_over(&filled) {
        Some(name) => bail!("nothing is known for {{{name}}}"),
        None => Ok(filled),
    }
}

/// A name in braces; the braces of the config languages themselves hold blanks, quotes or signs.
fn left_over(text: &str) -> Option<&str> {
    text.split('{').skip(1).find_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_other_braces_left() {
        let template = "listen {http}; { server {dir}/a; } %{+X}o { ssl_fc }";
        let filled = fill(template, &[("http", &80), ("dir", &"/tmp")]).unwrap();
        assert_eq!(filled, "listen 80; { server /tmp/a; } %{+X}o { ssl_fc }");
        assert!(fill(template, &[("http", &80)]).unwrap_err().to_string().contains("{dir}"));
    }
}
