"""
A voice from its mel-spectrogram
================================

WaveGlow (Prenger, Valle and Catanzaro, ICASSP 2019) is a Glow that draws the waveform of a voice given its mel-spectrogram.
That says how loud each band of frequencies is, but not where the waves are. Here is the same idea in small: four seconds of a
voice, on one core, in twenty seconds. The end of the sentence is held out, and drawn from its mel-spectrogram.
"""

# %%
# A recording
# -----------
# A German proverb, spoken: "Was der Mensch sät, das wird er vielfach ernten." It comes with version 0.2.0 of the package
# ``auditok``, under the MIT licence. Only that file is needed, so the package isn't imported. Of 44,100 samples a second 8,000
# are kept.

import base64
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.io import wavfile
from scipy.signal import ShortTimeFFT, resample_poly
from scipy.signal.windows import hann

from sklearn_flows.flows import Rows, glow
from sklearn_flows.training import fit_flow, whitening_matrix

torch.set_num_threads(1)
RATE = 8000
name = "was_der_mensch_saet_das_wird_er_vielfach_ernten_44100Hz_mono_lead_trail_silence.wav"
rate, wave = wavfile.read(Path(find_spec("auditok").origin).parent / "data" / name)
wave = resample_poly(wave / 2**15, 80, 441)[int(7.3 * RATE) : int(12.0 * RATE)]
wave /= np.abs(wave).max()

# %%
# Frames
# ------
# WaveGlow squeezes groups of eight samples into channels. Here groups of 32 become the coefficients of a modified discrete
# cosine transform. A frame is 64 samples long, and its neighbours overlap it by half; and yet a frame each 32 samples is an
# orthogonal transform of the whole waveform. So log-densities of frames add up to that of the waveform, and what is drawn has
# no seams.

N = 32
sample, coefficient = np.arange(2 * N)[:, None] + 0.5, np.arange(N) + 0.5
BASIS = np.sqrt(2 / N) * np.sin(np.pi * sample / (2 * N)) * np.cos(np.pi / N * (sample + N / 2) * coefficient)


def frames_at(centres):
    return np.lib.stride_tricks.sliding_window_view(wave, 2 * N)[centres - N] @ BASIS


def waveform(frames):
    halves = np.zeros((len(frames) + 1, N))
    halves[:-1] += frames @ BASIS[:N].T
    halves[1:] += frames @ BASIS[N:].T
    return halves[1:-1].ravel()


# %%
# The mel-spectrogram
# -------------------
# Windows of 32 milliseconds, and 24 triangular bands, evenly spaced on the mel scale. The flow sees the logarithms at the
# middle of a frame, and four milliseconds before and after.

N_BANDS, WINDOW, HOP = 24, 256, 2
stft = ShortTimeFFT(hann(WINDOW) / np.linalg.norm(hann(WINDOW)), HOP, RATE)
mel = 2595 * np.log10(1 + stft.f / 700)
peaks = np.linspace(0, mel[-1], N_BANDS + 2)[1:-1]
bands = np.maximum(0, 1 - np.abs(mel - peaks[:, None]) / peaks[0])
bands /= bands.sum(axis=1, keepdims=True)


def log_mel(wave):
    return np.log(bands @ stft.spectrogram(wave) + 1e-8).T


log_mel_of_recording = log_mel(wave)


def contexts_at(centres):
    return np.hstack([log_mel_of_recording[(centres + shift) // HOP - stft.p_min] for shift in (-N, 0, N)])


# %%
# Three parts of the sentence: to learn from, to tell when to stop, and to judge by. To learn from, a frame begins at every
# second sample; to judge by, at every 32nd, so that each sample counts once. No window reaches from one part into another.

seconds = {"training": [(0.05, 1.4), (2.0, 3.3)], "validation": [(1.45, 1.95)], "test": [(3.35, 4.6)]}
centres = {
    part: np.concatenate([np.arange(int(a * RATE), int(b * RATE), N if part == "test" else HOP) // HOP * HOP for a, b in spans])
    for part, spans in seconds.items()
}
frames = {part: frames_at(at) for part, at in centres.items()}
contexts = {part: contexts_at(at) for part, at in centres.items()}
scale = frames["training"].std(axis=0)
centre, spread = contexts["training"].mean(axis=0), contexts["training"].std(axis=0)
print(", ".join(f"{len(at):,} frames for {part}" for part, at in centres.items()))

# %%
# Two flows
# ---------
# ``glow`` assembles twelve steps of scale and shift, linear map and affine coupling. With ``n_context`` its couplings see the
# mel-spectrogram. Without, it is the density of any frame of this voice: what the mel-spectrogram tells is the difference.


def rows(part, in_context):
    values = torch.tensor(frames[part] / scale, dtype=torch.float32)
    context = torch.tensor((contexts[part] - centre) / spread, dtype=torch.float32) if in_context else None
    return Rows(values, torch.ones(len(values)), context)


def fit(in_context):
    generator = torch.Generator().manual_seed(0)
    train = rows("training", in_context)
    whitening = whitening_matrix(train.values.numpy(), train.weight.numpy())
    flow = glow(
        torch.as_tensor(whitening),
        n_transforms=12,
        hidden_layer_sizes=(64, 64),
        activation="silu",
        generator=generator,
        n_context=3 * N_BANDS if in_context else 0,
    )
    fit_flow(
        flow,
        train,
        rows("validation", in_context),
        max_iter=25,
        batch_size=512,
        learning_rate=2e-3,
        weight_decay=0.01,
        early_stopping=True,
        n_iter_no_change=8,
        tol=1e-3,
        generator=generator,
        n_compiled_threads=1,
    )
    return flow.requires_grad_(False)


def nats_per_sample(flow, in_context):
    log_density = flow.log_prob(*rows("test", in_context).given(slice(None))).numpy()
    return (log_density.mean() - np.log(scale).sum()) / N


flows = {"with the mel-spectrogram": fit(True), "without": fit(False)}
for name, flow in flows.items():
    print(
        f"held-out log-density {name:<26}{nats_per_sample(flow, flow is flows['with the mel-spectrogram']):.2f} nats per sample"
    )

# %%
# Synthesis
# ---------
# Noise goes backwards through the flow, all frames at once. At a temperature below one it is a little calmer than that of
# training, as WaveGlow's is. The distance of two sounds is the mean difference of their mel-spectrograms, in decibels; spectral
# convergence is the norm of the difference of their spectra, relative to that of the recording.

TEMPERATURE = 0.9
start, stop = centres["test"][0], centres["test"][-1]
recording = wave[start:stop]


def synthesise(name):
    test = rows("test", name == "with the mel-spectrogram")
    noise = TEMPERATURE * torch.randn(test.values.shape, generator=torch.Generator().manual_seed(0))
    return waveform(flows[name].from_latent(noise, test.context).numpy() * scale)


def distances(sound):
    decibels = 10 / np.log(10) * np.abs(log_mel(sound) - log_mel(recording)).mean()
    spectrum, expected = np.abs(stft.stft(sound)), np.abs(stft.stft(recording))
    return decibels, np.linalg.norm(spectrum - expected) / np.linalg.norm(expected)


white_noise = recording.std() * np.random.RandomState(0).normal(size=len(recording))
sounds = {
    "recording": recording,
    "drawn with the mel-spectrogram": synthesise("with the mel-spectrogram"),
    "drawn without": synthesise("without"),
    "white noise": white_noise,
}
for name, sound in sounds.items():
    decibels, convergence = distances(sound)
    print(f"{name:<32}{decibels:5.1f} dB from the recording, spectral convergence {convergence:.2f}")

fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True, sharey=True, layout="constrained")
for ax, (name, sound) in zip(axes, sounds.items(), strict=False):
    level = 10 * np.log10(stft.spectrogram(sound) + 1e-8)
    ax.imshow(level, origin="lower", aspect="auto", extent=stft.extent(len(sound)), vmin=-50, vmax=15, cmap="magma")
    ax.set(title=name, xlabel="time in s", xlim=(0, len(sound) / RATE))
axes[0].set_ylabel("frequency in Hz")
plt.show()

# %%
# To listen
# ---------
# The recording, then what was drawn with the mel-spectrogram, and without. The bands are coarser than the overtones of the
# voice, and each frame is drawn by itself, so the voice is hoarse.


silence = np.zeros(RATE // 2)
parts = [part for name in list(sounds)[:3] for part in (sounds[name], silence)]
wavfile.write("plot_audio.wav", RATE, (np.clip(np.concatenate(parts), -1, 1) * (2**15 - 1)).astype(np.int16))


class Player:
    """A sound that a page can play."""

    def __init__(self, path):
        self.content = base64.b64encode(Path(path).read_bytes()).decode()

    def _repr_html_(self):
        return f'<audio controls src="data:audio/wav;base64,{self.content}"></audio>'


Player("plot_audio.wav")
