"""Names of people, as an operator's spaCy model finds them in what is written for people.

    model.installed(setting)            which model it is, without importing spaCy: its name, version, and digest
    finder.SpacyNames.of(setting, it)   loads it; called with texts it gives spans of characters, for pii.find
    prose.prose(text)                   the text with its code as spaces: what the model is shown

spaCy is not a dependency of the platform: who wants names masked installs it with a model, and names that in PII_NAMES_MODEL.
The API asks for the model's identity, and imports no more than that.
"""
