"""`report.html`: one self-contained page about a job.

survey      reads all outcomes once: counts, samples, times
thumbnails  small pictures of the samples, embedded in the page
charts      chart coordinates computed from numbers
render      fills the template in `page/`
make        runs these steps and uploads the page
"""
