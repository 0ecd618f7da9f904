"""The rate book: how rate tables come about, with each rate's derivation kept. Pure; the council signs the outcome."""
