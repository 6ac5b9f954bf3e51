"""Enlarging pictures: one in memory, folders of files, video."""

from ghostsr_ext.inference.files import Outcome, upscale_files
from ghostsr_ext.inference.plan import UpscaleJob, plan_jobs, shard
from ghostsr_ext.inference.upscaler import Upscaler
from ghostsr_ext.inference.video import upscale_video

__all__ = [
    "Outcome",
    "UpscaleJob",
    "Upscaler",
    "plan_jobs",
    "shard",
    "upscale_files",
    "upscale_video",
]
