"""`report.html`: one page about one job, which needs nothing beside itself.

survey      one pass over all outcomes: counts, samples, times
thumbnails  the pictures of the samples, as small ones in the page
charts      numbers to coordinates
render      everything into the template in `page/`
"""
