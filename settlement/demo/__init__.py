"""The demonstration: a whole settlement in one command, on generated traffic or on a real trace."""

from settlement.demo.play import run

__all__ = ["run"]
