"""The analysis of a recording as one writes it with NumPy and SciPy, stage by stage, each timed.

Usage: analysis.py RECORDING ROUNDS     prints {"stage": seconds, …} (the fastest of the rounds) and what was found.

Every stage does the work of the Rust stage of the same name on the same input, in whole-array operations wherever there is
one; what is a recursion in time (the orientation filter) is a loop, as in the Python packages for it. One thread.
"""

import json
import os
import sys
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
import pyarrow.csv
from scipy import ndimage, signal

G = 9.80665
GRID_HZ = 100.0
ROLES = ["waist", "shoulder", "wrist", "racket"]


def read(path):
    table = pyarrow.csv.read_csv(path)
    sensor = table["sensor"].to_numpy(zero_copy_only=False)
    columns = {name: table[name].to_numpy() for name in ["t_ms", "ax", "ay", "az", "gx", "gy", "gz"]}
    track = {}
    for role in ROLES:
        rows = sensor == role
        if rows.any():
            t = columns["t_ms"][rows] / 1e3
            acc = np.column_stack([columns[c][rows] for c in ("ax", "ay", "az")])
            gyro = np.column_stack([columns[c][rows] for c in ("gx", "gy", "gz")])
            track[role] = (t, acc, gyro)
    return track


# ---- calibrate: order, unit, gaps, saturation, anti-aliased grid, gravity -----------------------------------------------


def calibrate(track):
    out = {}
    for role, (t, acc, gyro) in track.items():
        order = np.argsort(t, kind="stable")
        t, acc, gyro = t[order], acc[order], gyro[order]
        keep = np.concatenate([[True], np.diff(t) > 0])
        t, acc, gyro = t[keep], acc[keep], gyro[keep]
        rate = 1.0 / np.median(np.diff(t))
        if np.median(np.linalg.norm(acc, axis=1)) < 3.0:
            acc = acc * G
        gaps = np.flatnonzero(np.diff(t) > 5.0 / rate)
        limit = np.max(np.abs(gyro))
        saturated = np.any(np.abs(gyro) >= 0.999 * limit, axis=1)
        samples = np.column_stack([acc, gyro])
        if rate > 1.2 * GRID_HZ:
            low_pass = signal.butter(2, 0.4 * GRID_HZ, fs=rate, output="sos")
            samples = signal.sosfiltfilt(low_pass, samples, axis=0)
        grid_t = np.arange(t[0], t[-1], 1.0 / GRID_HZ)
        grid = np.column_stack([np.interp(grid_t, t, samples[:, c]) for c in range(6)])
        orientation = orientation_of(grid)
        out[role] = (grid_t, grid, gravity_of(orientation), len(gaps), saturated.mean(), samples, t, orientation)
    return out


def orientation_of(grid, tau_s=3.0):
    """The 6-axis part of VQF: gyro integrated to an inertial space, specific force low-passed there, tilt corrected."""
    dt = 1.0 / GRID_HZ
    rate = np.radians(grid[:, 3:])
    turn = 0.5 * (rate + np.vstack([rate[:1], rate[:-1]])) * dt
    angle = np.linalg.norm(turn, axis=1)
    sine = np.where(angle > 1e-9, np.sin(0.5 * angle) / np.maximum(angle, 1e-9), 0.5)
    steps = np.column_stack([np.cos(0.5 * angle), turn * sine[:, None]])
    inertial = np.empty_like(steps)
    w, x, y, z = 1.0, 0.0, 0.0, 0.0
    for i, (a, b, c, d) in enumerate(steps.tolist()):
        w, x, y, z = (
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        )
        inertial[i] = w, x, y, z
    inertial /= np.linalg.norm(inertial, axis=1, keepdims=True)
    force = rotate(inertial, grid[:, :3])
    low_pass = signal.butter(2, np.sqrt(2.0) / (2.0 * np.pi * tau_s), fs=GRID_HZ, output="sos")
    first = force[: int(tau_s * GRID_HZ)].mean(axis=0)
    state = signal.sosfilt_zi(low_pass)[:, :, None] * first
    smooth, _ = signal.sosfilt(low_pass, force, axis=0, zi=state)
    tilt = np.empty_like(inertial)
    w, x, y, z = 1.0, 0.0, 0.0, 0.0
    for i, (fx, fy, fz) in enumerate(smooth.tolist()):
        # The smoothed force in the world so far, and the smallest turn that carries it to the vertical.
        tx, ty, tz = 2.0 * (y * fz - z * fy), 2.0 * (z * fx - x * fz), 2.0 * (x * fy - y * fx)
        ux, uy, uz = fx + w * tx + y * tz - z * ty, fy + w * ty + z * tx - x * tz, fz + w * tz + x * ty - y * tx
        length = (ux * ux + uy * uy + uz * uz) ** 0.5
        ux, uy, uz = ux / length, uy / length, uz / length
        a = max(0.5 * (uz + 1.0), 1e-12) ** 0.5
        b, c = 0.5 * uy / a, -0.5 * ux / a
        w, x, y, z = a * w - b * x - c * y, a * x + b * w + c * z, a * y - b * z + c * w, a * z + b * y - c * x
        length = (w * w + x * x + y * y + z * z) ** 0.5
        w, x, y, z = w / length, x / length, y / length, z / length
        tilt[i] = w, x, y, z
    return multiply(tilt, inertial)


def multiply(a, b):
    aw, ax, ay, az = a.T
    bw, bx, by, bz = b.T
    return np.column_stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ]
    )


def rotate(q, v):
    t = 2.0 * np.cross(q[:, 1:], v)
    return v + q[:, :1] * t + np.cross(q[:, 1:], t)


def gravity_of(orientation):
    down = np.zeros((len(orientation), 3))
    down[:, 2] = G
    return rotate(orientation * [1.0, -1.0, -1.0, -1.0], down)


# ---- segment: energy score, adaptive threshold, prominent peaks at a distance, edges, impact ----------------------------


def segment(sensor):
    grid_t, grid, _, _, _, samples, t, _ = sensor
    acc = (np.linalg.norm(grid[:, :3], axis=1) / G - 1.0) / 1.2
    gyro = np.linalg.norm(grid[:, 3:], axis=1) / 300.0
    score = ndimage.uniform_filter1d(ndimage.uniform_filter1d(np.hypot(acc, gyro), 25), 15)
    thin = score[::5]
    high = ndimage.percentile_filter(thin, 96.0, size=600, origin=299)
    threshold = np.clip(0.4 * np.repeat(high, 5)[: len(score)], 0.7, 2.0)
    peaks, found = signal.find_peaks(score, height=threshold, distance=80, prominence=0.0, wlen=400)
    peaks = peaks[found["prominences"] >= 0.5 * score[peaks]]
    jerk = np.linalg.norm(np.diff(samples[:, :3], axis=0), axis=1) / np.diff(t)
    swings = []
    for peak in peaks:
        level = max(0.12 * score[peak], 0.12)
        before = score[max(0, peak - 120) : peak]
        after = score[peak + 1 : peak + 141]
        below = np.flatnonzero(before <= level)
        start = peak - len(before) + (below[-1] if len(below) else int(np.argmin(before)))
        below = np.flatnonzero(after <= level)
        end = peak + 1 + (below[0] if len(below) else int(np.argmin(after)))
        near = slice(max(start, peak - 40), min(end, peak + 40) + 1)
        fastest = near.start + int(np.argmax(gyro[near]))
        i, j = np.searchsorted(t, [grid_t[start], grid_t[end]])
        a, b = np.searchsorted(t, [grid_t[fastest] - 0.12, grid_t[fastest] + 0.12])
        spike = a + int(np.argmax(jerk[a : b - 1])) if b - a > 2 else a
        hit = jerk[spike] > 8.0 * np.median(jerk[i : j - 1]) if j - i > 8 else False
        swings.append((start, fastest, end, t[spike] if hit else grid_t[fastest]))
    return swings


# ---- classify: windows, hand figures, MiniRocket, two linear heads ------------------------------------------------------

# Two windows a swing: first grid step from the peak, last, distance; and the dilations that fit.
WINDOWS = [(np.arange(-70, 82, 2), [1, 2, 3, 5, 9]), (np.arange(-120, 84, 4), [1, 2, 3, 4, 6])]
rng = np.random.default_rng(1)
KERNELS = np.array([(a, b, c) for a in range(9) for b in range(a + 1, 9) for c in range(b + 1, 9)])
CHANNELS = rng.integers(0, 8, size=(2, 5, 84))
BIASES = rng.normal(size=(2, 5, 84, 3))
RIDGE = rng.normal(size=(2, 5 * 84 * 3, 12))
FIGURES = 338
LDA = rng.normal(size=(2, FIGURES, 12))
CENTRE, WITHIN = rng.normal(size=FIGURES), rng.normal(size=FIGURES)


def classify(sensor, swings):
    grid = sensor[1]
    if not swings:
        return np.zeros((0, 12))
    at = np.array([peak for _, peak, _, _ in swings])
    answer = 0.0
    for number, (steps, dilations) in enumerate(WINDOWS):
        rows = np.clip(at[:, None] + steps[None, :], 0, len(grid) - 1)
        windows = np.empty((len(swings), 8, len(steps)))
        windows[:, :3] = np.moveaxis(grid[rows][:, :, :3], 2, 1) / G
        windows[:, 3:6] = np.moveaxis(grid[rows][:, :, 3:], 2, 1) / 500.0
        windows[:, 6] = np.linalg.norm(windows[:, :3], axis=1)
        windows[:, 7] = np.linalg.norm(windows[:, 3:6], axis=1)
        figures = hand(windows, int(np.searchsorted(steps, 0)))
        if number == 0:
            gate = ((figures - CENTRE) ** 2 * WITHIN).sum(axis=1)
        convolved = rocket(windows, number, dilations) @ RIDGE[number]
        answer = answer + softmax(convolved) * 0.4 + softmax(figures @ LDA[number]) * 0.1
    return np.column_stack([answer, gate])


def softmax(scores):
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def rocket(windows, number, dilations):
    """Shares of positive values of 84 kernels (two weights: -1, and 2 at three places) at five dilations."""
    features = []
    points = windows.shape[2]
    for d, dilation in enumerate(dilations):
        pad = 4 * dilation
        padded = np.pad(windows, ((0, 0), (0, 0), (pad, pad)))
        taps = np.stack([padded[:, :, k * dilation : k * dilation + points] for k in range(9)], axis=2)
        total = taps.sum(axis=2)
        for k, kernel in enumerate(KERNELS):
            channel = CHANNELS[number, d, k]
            value = 3.0 * taps[:, channel, kernel].sum(axis=1) - total[:, channel]
            features.append((value[:, :, None] > BIASES[number, d, k]).mean(axis=1))
    return np.concatenate(features, axis=1)


def hand(windows, peak):
    """The figures of the Rust stage: of each channel, correlations, spectra, posture, turns and timing."""
    count, _, points = windows.shape
    mean, deviation = windows.mean(axis=2), windows.std(axis=2)
    centred = windows - mean[:, :, None]
    scaled = centred / np.maximum(deviation, 1e-6)[:, :, None]
    change = np.diff(windows, axis=2)
    above = centred > 0.0
    parts = [mean, deviation, windows.argmin(axis=2) / points, windows.argmax(axis=2) / points]
    parts += [(scaled**3).mean(axis=2), np.minimum((scaled**4).mean(axis=2), 50.0)]
    parts += [np.abs(change).sum(axis=2) / points, change.std(axis=2)]
    parts += [(above[:, :, 1:] != above[:, :, :-1]).sum(axis=2) / points]
    ranked = np.sort(windows, axis=2)
    parts += [ranked[:, :, round(rank * (points - 1))] for rank in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)]
    parts += [windows[:, :, k * points // 13 : (k + 1) * points // 13].mean(axis=2) for k in range(13)]
    step = max(points * 2 // 25, 1)
    parts += [windows[:, :, np.clip(peak + k * step, 0, points - 1)] for k in range(-3, 4)]
    covariance = np.einsum("nap,nbp->nab", scaled, scaled) / points
    a, b = np.triu_indices(8, 1)
    parts.append(covariance[:, a, b])
    power = np.abs(np.fft.rfft(centred[:, 6:], axis=2))[:, :, 1:] ** 2
    share = np.arange(1, power.shape[2] + 1) / power.shape[2]
    whole = np.maximum(power.sum(axis=2), 1e-12)
    for low, high in ((0.0, 0.08), (0.08, 0.2), (0.2, 0.45), (0.45, 1.0)):
        parts.append(power[:, :, (share > low) & (share <= high)].sum(axis=2) / whole)
    posture = windows[:, :3, : max(points // 5, 1)].mean(axis=2)
    parts.append(posture / np.maximum(np.linalg.norm(posture, axis=1, keepdims=True), 1e-6))
    fastest = windows[:, 7].argmax(axis=1)
    earlier = np.arange(points)[None, :] < fastest[:, None]
    for half in (earlier, ~earlier):
        parts.append((windows[:, 3:6] * half[:, None, :]).sum(axis=2) / points)
    squares = windows[:, 7] ** 2
    top = windows[:, 7].max(axis=1)
    before = (squares * earlier).sum(axis=1)
    parts += [(windows[:, 7] > 0.5 * top[:, None]).mean(axis=1, keepdims=True)]
    parts += [(before / np.maximum(squares.sum(axis=1), 1e-9))[:, None], np.log(np.maximum(top, 1e-3))[:, None]]
    parts += [np.log(np.maximum(windows[:, 6].max(axis=1), 1e-3))[:, None]]
    parts += [((windows[:, 6].argmax(axis=1) - fastest) / points)[:, None]]
    return np.concatenate([part.reshape(count, -1) for part in parts], axis=1)


# ---- kinetics: peaks of the chain, delays, cross-correlation, speed, smoothness -----------------------------------------


def motion(sensors):
    low_pass = signal.butter(2, 15.0, fs=GRID_HZ, output="sos")
    return {
        role: np.linalg.norm(signal.sosfiltfilt(low_pass, sensor[1][:, 3:], axis=0), axis=1)
        for role, sensor in sensors.items()
    }


def kinetics(sensors, swings):
    rates = motion(sensors)
    figures = []
    reference = sensors["racket"]
    for start, fastest, end, impact in swings:
        own = {}
        peaks = {}
        for role, rate in rates.items():
            first = int(np.searchsorted(sensors[role][0], impact - 0.35))
            last = int(np.searchsorted(sensors[role][0], impact + 0.2))
            if last - first < 5:
                continue
            k = first + int(np.argmax(rate[first:last]))
            if 0 < k < len(rate) - 1:
                left, mid, right = rate[k - 1 : k + 2]
                bend = left - 2 * mid + right
                peaks[role] = sensors[role][0][k] + (0.5 * (left - right) / bend / GRID_HZ if bend else 0.0)
                own[f"peak_{role}"] = mid
        for inner, outer in zip(ROLES, ROLES[1:]):
            if inner in peaks and outer in peaks:
                own[f"delay_{inner}_{outer}"] = peaks[outer] - peaks[inner]
                a = rates[inner][start : end + 1] - rates[inner][start : end + 1].mean()
                b = rates[outer][start : end + 1] - rates[outer][start : end + 1].mean()
                if len(a) == len(b) and len(a) > 8:
                    cross = signal.correlate(b, a, mode="full") / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-12)
                    middle = len(a) - 1
                    window = cross[middle - min(30, middle) : middle + 31]
                    own[f"lag_{inner}_{outer}"] = (int(np.argmax(window)) - min(30, middle)) / GRID_HZ
        # How the shoulder turns against the waist, and each segment's own turn since the start.
        turns = {role: sensors[role][7][start : end + 1] for role in ("waist", "shoulder", "wrist", "racket")}
        relative = multiply(turns["waist"] * [1.0, -1.0, -1.0, -1.0], turns["shoulder"])
        own["separation"] = np.degrees(np.ptp(2.0 * np.arctan2(relative[:, 3], relative[:, 0])))
        for role, q in turns.items():
            since = multiply(q, np.broadcast_to(q[:1] * [1.0, -1.0, -1.0, -1.0], q.shape))
            for axis in (1, 2, 3):
                own[f"range_{role}_{axis}"] = np.degrees(np.ptp(np.unwrap(2.0 * np.arctan2(since[:, axis], since[:, 0]))))
        rate = rates["racket"][start : end + 1]
        if len(rate) > 8:
            size = int(2 ** (np.ceil(np.log2(len(rate))) + 4))
            spectrum = np.abs(np.fft.rfft(rate, size))
            spectrum /= spectrum.max() + 1e-12
            frequency = np.fft.rfftfreq(size, 1.0 / GRID_HZ)
            inside = np.flatnonzero((frequency <= 10.0) & (spectrum >= 0.05))
            part = spectrum[inside[0] : inside[-1] + 1]
            own["sparc"] = -np.sum(np.hypot(1.0 / max(len(part) - 1, 1), np.diff(part)))
            smooth = signal.savgol_filter(rate, min(15, len(rate) // 2 * 2 - 1), 3, deriv=2, delta=1.0 / GRID_HZ)
            duration = len(rate) / GRID_HZ
            own["ldlj"] = -np.log(duration**3 / rate.max() ** 2 * np.trapezoid(smooth**2, dx=1.0 / GRID_HZ))
        dynamic = reference[1][start : end + 1, :3] - reference[2][start : end + 1]
        own["peak_accel"] = np.linalg.norm(dynamic, axis=1).max()
        own["speed"] = np.radians(rates["racket"][fastest]) * 0.52
        figures.append(own)
    return figures


def main():
    path, rounds = sys.argv[1], int(sys.argv[2])
    track = read(path)
    best = {}
    for _ in range(rounds):
        clock = [time.perf_counter()]
        sensors = calibrate(track)
        clock.append(time.perf_counter())
        swings = segment(sensors["racket"])
        clock.append(time.perf_counter())
        classify(sensors["racket"], swings)
        clock.append(time.perf_counter())
        kinetics(sensors, swings)
        clock.append(time.perf_counter())
        for stage, seconds in zip(["calibrate", "segment", "classify", "kinetics"], np.diff(clock)):
            best[stage] = min(best.get(stage, np.inf), float(seconds))
    frames = sum(len(t) for t, _, _ in track.values())
    print(json.dumps({"stages": best, "frames": frames, "swings": len(swings)}))


main()
