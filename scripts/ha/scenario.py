"""What a scenario is, and the rows of its result.

A module in scripts/ha/ adds one like this; it needs no list anywhere:

    @scenario("backend")
    def backend_vanishes(lab):
        '''One line for --list.'''
        ...
        return [Row("one backend host vanishes", "0 failed", "0 failed of 512", met=True)]

A row that is not met fails the run. What must hold before a figure means anything is said by
`expect`, and waited for by `lab.until`: both end the scenario with their sentence.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

_known = {}


class Failed(Exception):
    """The scenario cannot go on; the sentence says what did not hold."""


@dataclass
class Row:
    """One line of the table: what was done, what must hold, what was measured, whether it held."""
    fault: str
    target: str
    measured: str
    met: bool

    def __str__(self):
        return f"{self.fault}: {self.measured} (target: {self.target}){'' if self.met else '  MISSED'}"

    @staticmethod
    def markdown(rows):
        lines = ["| fault | target | measured |", "|---|---|---|"]
        lines += [f"| {row.fault} | {row.target} | {row.measured}{'' if row.met else ' **missed**'} |" for row in rows]
        return "\n".join(lines)


def scenario(name, waits=False):
    """Makes a function that takes a Lab and returns rows known as `name`.

    One that `waits` has targets of seconds and little to do, and is run beside others.
    """
    def known_as(function):
        _known[name] = function
        function.waits = waits
        return function
    return known_as


def all_of_them():
    """Name and function of every scenario of every module beside this one."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        importlib.import_module(f"ha.{file.stem}")
    return _known


def expect(holds, sentence):
    if not holds:
        raise Failed(sentence)
