"""scikit-learn estimators: the models of the command line on tables of numbers, and outliers.

    make_pipeline(SimpleImputer(), VAE(n_components=8, minutes=1)).fit(X)
    OutlierDetector(contamination=0.02).fit_predict(X)
"""

from latlas.sklearn.estimators import AE, PCA, VAE, LatentModel
from latlas.sklearn.outliers import OutlierDetector, PyODDetector

__all__ = ["AE", "PCA", "VAE", "LatentModel", "OutlierDetector", "PyODDetector"]
