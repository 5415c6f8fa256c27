//! The few shapes of arguments that the fixture knows.

/// What is left of the command line.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn new(words: impl Iterator<Item = String>) -> Arguments {
        Arguments(words.collect())
    }

    /// The next word that is no option.
    pub fn word(&mut self) -> Option<String> {
        let first = self.0.first()?;
        (!first.starts_with("--")).then(|| self.0.remove(0))
    }

    /// Is the option there? It is taken away.
    pub fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|word| word == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// The value of an option, taken away.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|word| word == name)?;
        self.0.remove(place);
        (place < self.0.len()).then(|| self.0.remove(place))
    }

    pub fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.text(name)
            .map(|text| text.parse().map_err(|error| format!("{name} {text}: {error}")))
            .transpose()
    }

    pub fn required_number(&mut self) -> Result<u64, String> {
        let word = self.word().ok_or("a number is missing")?;
        word.parse().map_err(|error| format!("{word}: {error}"))
    }
}
