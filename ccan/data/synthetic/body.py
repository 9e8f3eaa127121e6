"""How a person stands: joints from the gait, and the solids that the body, the clothes and the luggage are made of.

Lengths are shares of the person's height (head 1/7.5) times that height in metres; axes as in `render`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccan.data.synthetic.people import Person
from ccan.data.synthetic.render import Solid

Point = tuple[float, float, float]

WAIST, NECK, CROTCH = 0.605, 0.835, 0.475
"""Heights of the torso's landmarks, as shares of the person's height."""


@dataclass(frozen=True)
class Pose:
    """One moment of a person.

    Attributes:
        phase: place in the gait cycle, radians.
        stride: length of the steps; 0 = standing, 1 = walking briskly.
        head_turn: yaw of the head against the body, radians; positive to the person's left.
        arm_bend: bend of the elbows beyond walking, radians.
    """

    phase: float
    stride: float
    head_turn: float = 0.0
    arm_bend: float = 0.0


def _swing(start: Point, length: float, angle: float, outward: float = 0.0) -> Point:
    """End of a limb that hangs down at `angle` forward and `outward` to the left, radians."""
    x, y, z = start
    down = length * float(np.cos(outward))
    return (
        x + length * float(np.sin(outward)),
        y - down * float(np.cos(angle)),
        z + down * float(np.sin(angle)),
    )


@dataclass(frozen=True)
class _Leg:
    hip: Point
    knee: Point
    ankle: Point
    heel: Point
    toe: Point


def _leg(side: float, phase: float, stride: float) -> _Leg:
    """One leg in units of the height, hip at its standing height; side +1 = left."""
    hip = (0.052 * side, 0.505, 0.0)
    thigh = 0.03 + 0.42 * stride * float(np.cos(phase))
    bend = 0.07 + 0.95 * stride * max(0.0, -float(np.sin(phase + 0.45))) ** 1.3
    shin = thigh - bend
    knee = _swing(hip, 0.24, thigh, 0.012 * side)
    ankle = _swing(knee, 0.225, shin)
    tilt = 0.75 * shin
    forward = np.array([0.0, np.sin(tilt), np.cos(tilt)])
    up = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    splay = np.array([0.12 * side, 0.0, 0.0])
    heel = np.array(ankle) - 0.018 * forward - 0.026 * up
    toe = np.array(ankle) + 0.092 * (forward + splay) - 0.031 * up
    return _Leg(hip, knee, ankle, tuple(heel.tolist()), tuple(toe.tolist()))


@dataclass(frozen=True)
class _Arm:
    shoulder: Point
    elbow: Point
    wrist: Point
    hand: Point


def _arm(side: float, phase: float, pose: Pose, shoulder: float, bend: float) -> _Arm:
    """One arm in units of the height; it swings against the leg of its side."""
    start = (shoulder * side, 0.792, -0.006)
    upper = -0.42 * pose.stride * float(np.cos(phase)) - 0.12 * min(bend, 1.0)
    fore = upper + 0.22 + 0.25 * pose.stride * (1 - float(np.cos(phase))) / 2 + bend
    elbow = _swing(start, 0.165, upper, 0.14 * side)
    wrist = _swing(elbow, 0.14, fore, 0.02 * side)
    return _Arm(start, elbow, wrist, _swing(wrist, 0.05, fore + 0.12, -0.06 * side))


class Figure:
    """Builds the solids of a person in a pose; `solids` holds them in metres, feet on the ground at y = 0."""

    def __init__(self, person: Person, pose: Pose) -> None:
        self.person = person
        self.pose = pose
        self.wide = person.build
        self.solids: list[Solid] = []
        legs = {
            +1: _leg(+1, pose.phase, pose.stride),
            -1: _leg(-1, pose.phase + np.pi, pose.stride),
        }
        lowest = min(point[1] for leg in legs.values() for point in (leg.heel, leg.toe))
        self._rise = 0.021 - lowest
        shoulder = 0.1 * person.shoulders * (0.75 + 0.25 * self.wide)
        left_bend = right_bend = pose.arm_bend
        if person.held in ("folder", "box", "cup"):
            right_bend = 1.25
        if person.held == "box":
            left_bend = 1.25
        self._arms = {
            +1: _arm(+1, pose.phase, pose, shoulder, left_bend),
            -1: _arm(-1, pose.phase + np.pi, pose, shoulder, right_bend),
        }
        self._legs_of(legs)
        self._torso()
        for arm in self._arms.values():
            self._arm_of(arm)
        self._head()
        self._luggage()
        self._held()

    def _add(
        self,
        cloth: str,
        top: Point,
        bottom: Point,
        a: tuple[float, ...],
        b: tuple[float, ...] | None = None,
        cap: float = 1.0,
        yaw: float = 0.0,
    ) -> None:
        """One solid given in shares of the height, relative to the standing hip."""
        size = self.person.height

        def metres(point: Point) -> Point:
            return (point[0] * size, (point[1] + self._rise) * size, point[2] * size)

        self.solids.append(
            Solid(
                metres(top),
                metres(bottom),
                tuple(value * size for value in a),
                tuple(value * size for value in (a if b is None else b)),
                cloth,
                cap,
                yaw,
            )
        )

    def _legs_of(self, legs: dict[int, _Leg]) -> None:
        person, wide = self.person, 0.55 + 0.45 * self.wide
        extra = {"trousers": 0.006, "slim trousers": 0.001, "shorts": 0.008}.get(person.bottom, 0.0)
        wide_hem = extra + (0.012 if person.bottom == "trousers" else 0.0)
        boots = person.shoes == "boots"
        for leg in legs.values():
            thigh = tuple(w * wide + extra for w in (0.054, 0.052, 0.047, 0.041, 0.036))
            if person.bottom == "shorts":
                thigh = (*thigh[:3], 0.052 * wide, 0.037 * wide)
            self._add("thigh", leg.hip, leg.knee, thigh)
            shin = [0.035, 0.037, 0.035, 0.029, 0.023]
            grow = np.linspace(extra, wide_hem, 5) if person.bottom == "trousers" else np.zeros(5)
            if boots:
                grow = np.maximum(grow, [0, 0, 0, 0.007, 0.012])
            widths = tuple(float(w * wide + g) for w, g in zip(shin, grow, strict=True))
            self._add("shin", leg.knee, leg.ankle, widths, cap=0.9)
            foot = (0.023, 0.024, 0.027, 0.026, 0.019)
            self._add("shoe", leg.heel, leg.toe, foot, tuple(0.92 * w for w in foot), cap=0.9)
            down = [(p[0], p[1] - 0.014, p[2]) for p in (leg.heel, leg.toe)]
            self._add("sole", down[0], down[1], (0.021, 0.02, 0.024, 0.024, 0.018), cap=0.9)
        if person.bottom in ("skirt", "long skirt"):
            tight = 0.86 if person.top == "coat" else 1.0
            spread = (0.02 + 0.05 * self.pose.stride) * tight
            end = 0.245 if person.bottom == "skirt" else 0.13
            a = tuple(tight * w * self.wide for w in (0.096, 0.108, 0.114, 0.12))
            b = (0.066, 0.082 * tight, 0.085 * tight + spread / 2, 0.09 * tight + spread)
            self._add("skirt", (0, WAIST - 0.02, 0), (0, end, 0.005), a, b, cap=0.12)

    def _torso(self) -> None:
        person, wide = self.person, self.wide
        loose = {
            "jacket": 0.009,
            "open jacket": 0.009,
            "coat": 0.01,
            "hoodie": 0.008,
            "sweater": 0.005,
        }
        extra = loose.get(person.top, 0.002)
        shoulders = person.shoulders * (0.7 + 0.3 * wide)
        a = [
            0.036,
            0.086 * shoulders,
            0.113 * shoulders,
            0.109 * shoulders,
            0.1,
            0.091,
            0.087,
            0.09,
        ]
        a += [0.095, 0.098, 0.092, 0.07]
        b = [0.032, 0.05, 0.058, 0.063, 0.064, 0.061, 0.058, 0.058, 0.061, 0.065, 0.064, 0.05]
        girth = [1, 1, 1, *([wide] * 9)]
        a_wide = tuple(w * g + extra for w, g in zip(a, girth, strict=True))
        b_wide = tuple(w * (g**1.5) + extra for w, g in zip(b, girth, strict=True))
        self._add("torso", (0, NECK, -0.008), (0, CROTCH, 0), a_wide, b_wide, cap=0.55)
        if person.top == "coat":
            spread = 0.02 + 0.045 * self.pose.stride
            hem = tuple(w * wide for w in (0.106, 0.114, 0.12, 0.126))
            deep = (0.075 * wide, 0.084 * wide, 0.09 + spread / 2, 0.094 + spread)
            self._add("coat tail", (0, WAIST + 0.01, 0), (0, 0.27, 0.0), hem, deep, cap=0.1)
        if person.top == "hoodie":
            self._add(
                "hood", (0, 0.835, -0.055), (0, 0.795, -0.065), (0.05, 0.055, 0.045), (0.028,) * 3
            )
        if person.scarf != "none":
            self._add(
                "scarf", (0, 0.862, 0), (0, 0.835, 0.002), (0.04, 0.047), (0.043, 0.05), cap=0.5
            )

    def _arm_of(self, arm: _Arm) -> None:
        person, wide = self.person, 0.5 + 0.5 * self.wide
        sleeve = {"t-shirt": 0.003, "shirt": 0.004}.get(person.top, 0.009)
        fore = 0.0 if person.top == "t-shirt" else sleeve
        upper_sizes = (0.029, 0.031, 0.029, 0.027, 0.025)
        upper = tuple(w * wide + sleeve for w in upper_sizes)
        if person.top == "t-shirt":
            upper = (*upper[:3], 0.03 * wide, 0.025 * wide)
        self._add("upper arm", arm.shoulder, arm.elbow, upper)
        lower = tuple(w * wide + fore for w in (0.025, 0.025, 0.022, 0.019, 0.017))
        self._add("forearm", arm.elbow, arm.wrist, lower)
        self._add("hand", arm.wrist, arm.hand, (0.016, 0.021, 0.019, 0.012), (0.014,) * 4)

    def _head(self) -> None:
        _person, yaw = self.person, self.pose.head_turn
        ahead = (float(np.sin(yaw)), 0.0, float(np.cos(yaw)))

        def at(height: float, forward: float, aside: float = 0.0) -> Point:
            return (
                forward * ahead[0] + aside * ahead[2],
                height,
                0.008 + forward * ahead[2] - aside * ahead[0],
            )

        self._add("neck", (0, 0.875, 0), (0, 0.82, -0.008), (0.03, 0.031, 0.036))
        a = (0.034, 0.043, 0.047, 0.047, 0.045, 0.04, 0.03)
        b = (0.04, 0.053, 0.057, 0.056, 0.053, 0.048, 0.036)
        self._add("head", at(0.972, -0.003), at(0.893, 0.006), a, b, cap=0.8, yaw=yaw)
        self._add("nose", at(0.934, 0.053), at(0.922, 0.058), (0.006, 0.008), yaw=yaw)
        for side in (-1, 1):
            self._add(
                "ear", at(0.938, -0.004, 0.047 * side), at(0.922, -0.002, 0.046 * side), (0.008,)
            )
        self._hair(at, yaw)
        self._hat(at, yaw)

    def _hair(self, at, yaw: float) -> None:
        hair = self.person.hair
        if hair == "bald":
            return
        if hair == "curly":
            self._add(
                "hair", at(0.972, -0.02), at(0.925, -0.026), (0.052, 0.06, 0.054), cap=0.8, yaw=yaw
            )
        else:
            a, b = (0.038, 0.047, 0.05, 0.047), (0.044, 0.052, 0.05, 0.044)
            self._add("hair", at(0.975, -0.012), at(0.917, -0.017), a, b, cap=0.75, yaw=yaw)
        if hair == "long":
            a, b = (0.046, 0.056, 0.058, 0.05), (0.035, 0.036, 0.032, 0.024)
            self._add("hair", at(0.95, -0.026), at(0.81, -0.05), a, b, yaw=yaw)
        if hair == "ponytail":
            self._add(
                "hair", at(0.955, -0.066), at(0.845, -0.085), (0.015, 0.023, 0.02, 0.01), yaw=yaw
            )
        if hair == "bun":
            self._add("hair", at(0.985, -0.058), at(0.972, -0.062), (0.026,), yaw=yaw)

    def _hat(self, at, yaw: float) -> None:
        hat = self.person.hat
        if hat == "beanie":
            a, b = (0.036, 0.051, 0.054, 0.055), (0.042, 0.058, 0.062, 0.063)
            self._add("hat", at(0.99, -0.006), at(0.955, -0.004), a, b, cap=0.75, yaw=yaw)
        if hat == "cap":
            a, b = (0.04, 0.05, 0.053), (0.044, 0.058, 0.062)
            self._add("hat", at(0.985, -0.004), at(0.958, -0.002), a, b, cap=0.6, yaw=yaw)
            self._add(
                "hat", at(0.958, 0.05), at(0.95, 0.098), (0.044, 0.042, 0.03), (0.008,) * 3, yaw=yaw
            )
        if hat == "sun hat":
            self._add(
                "hat", at(0.995, -0.004), at(0.965, -0.004), (0.044, 0.052), (0.05, 0.06), cap=0.5
            )
            self._add("hat", at(0.962, -0.004), at(0.957, -0.004), (0.09,), (0.096,), cap=0.15)

    def _luggage(self) -> None:
        person, left, right = self.person, self._arms[+1], self._arms[-1]
        if person.bag == "backpack":
            deep = -0.105 - 0.03 * (self.wide - 1)
            a, b = (0.06, 0.078, 0.082, 0.084, 0.08), (0.03, 0.044, 0.052, 0.055, 0.05)
            self._add("bag", (0, 0.795, deep), (0, 0.6, deep - 0.004), a, b, cap=0.45)
            self._add(
                "bag pocket",
                (0, 0.68, deep - 0.045),
                (0, 0.615, deep - 0.048),
                (0.055,),
                (0.02,),
                0.4,
            )
        if person.bag == "shoulder bag":
            x = 0.118 * self.wide
            a, b = (0.024, 0.026, 0.028), (0.07, 0.075, 0.075)
            self._add("bag", (x, 0.56, 0.0), (x + 0.008, 0.475, 0.0), a, b, cap=0.2)
        if person.bag == "handbag":
            x, y, z = left.hand
            a, b = (0.016, 0.022, 0.027), (0.05, 0.066, 0.072)
            self._add("bag", (x, y - 0.055, z), (x, y - 0.135, z), a, b, cap=0.25)
            for shift in (-0.03, 0.03):
                self._add("strap", (x, y, z), (x, y - 0.06, z + shift), (0.005,))
        if person.bag == "trolley":
            x, y, z = right.hand
            x, z = x - 0.05, z - 0.12
            self._add("bag", (x, 0.31, z), (x, 0.06, z - 0.02), (0.085,) * 2, (0.05,) * 2, cap=0.2)
            self._add("strap", (x, y, z + 0.1), (x, 0.3, z), (0.006,))
            for side in (-0.06, 0.06):
                self._add("strap", (x + side, 0.035, z), (x + side, 0.015, z), (0.016,))

    def _held(self) -> None:
        held, (x, y, z) = self.person.held, self._arms[-1].hand
        if held == "folder":
            self._add(
                "held", (x + 0.02, y + 0.05, z), (x + 0.02, y - 0.06, z), (0.055,), (0.012,), 0.1
            )
        if held == "box":
            self._add(
                "held", (0, y + 0.06, z + 0.02), (0, y - 0.035, z + 0.02), (0.1,), (0.06,), 0.08
            )
        if held == "umbrella":
            top, tip = (x, y + 0.05, z - 0.01), (x - 0.01, y - 0.31, z + 0.05)
            self._add("held", top, tip, (0.006, 0.017, 0.02, 0.016, 0.011, 0.005))
        if held == "cup":
            self._add(
                "held", (x, y + 0.05, z + 0.01), (x, y - 0.005, z + 0.01), (0.021, 0.017), cap=0.15
            )
