from bench.samplers import NoOptions, first_x


class Midpoint:
    """Every step takes the slope half way, which an Euler step finds: two network calls a step."""

    options = NoOptions
    serves = ("discrete", "continuous")

    def call_times(self, process, num_steps, options):
        return process.grid(2 * num_steps)[:-1]

    def sample(self, denoiser, x, num_steps, draw, options):
        times = denoiser.process.grid(2 * num_steps)
        x = first_x(denoiser.process, times[0], x)
        for start, middle, end in zip(times[:-2:2], times[1::2], times[2::2], strict=True):
            halfway = self.moved(denoiser, x, start, middle, slope=self.slope(denoiser, x, start))
            x = self.moved(denoiser, x, start, end, slope=self.slope(denoiser, halfway, middle))
        return x

    def slope(self, denoiser, x, t):
        motion, (x0, noise, _) = denoiser.process.motion(t), denoiser(x, t)
        return motion.of_x0 * x0 + motion.of_noise * noise

    def moved(self, denoiser, x, start, end, slope):
        before, after = denoiser.process.motion(start), denoiser.process.motion(end)
        return (before.scale * x + (after.clock - before.clock) * slope) / after.scale


MIDPOINT = Midpoint()
