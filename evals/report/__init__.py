"""The report stage: what a run left behind, for a person, a pull request and a program."""
